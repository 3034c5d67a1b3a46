"""What recurs in models: names, labels, secrets, texts that a database can hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field, SecretStr, StringConstraints

TENANT_ID = r"^[A-Za-z0-9][A-Za-z0-9._~:@|+=-]{0,199}$"
INTEGRATION_NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"

TenantId = Annotated[str, StringConstraints(pattern=TENANT_ID), Field(description="the platform's own id")]
IntegrationName = Annotated[str, StringConstraints(pattern=INTEGRATION_NAME)]
ProfileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]  # an access profile's
RegionName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
# Printable in the wide sense: no control characters. 200 is what the columns and cursors are meant for.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,200}$")]
LabelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")]
LabelValue = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{0,255}$")]
Labels = Annotated[dict[LabelName, LabelValue], Field(max_length=64, description="yours, unread by Posthouse")]
# A provider module's key for an account, such as `team:T1` or `user:T1/U2`.
Account = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,30}:[^\x00-\x1f\x7f]{1,300}$")]
Secret = Annotated[SecretStr, Field(min_length=1, max_length=16 * 1024, description="never shown again")]
When = Annotated[AwareDatetime, Field(description="RFC 3339")]
