// An OpenID provider that we did not write (panva's oidc-provider), with refresh tokens that rotate. It revokes the whole grant
// when one that was used comes again. Arguments: client id, client secret, redirect URI. What happens is a JSON line each.
import Provider from 'oidc-provider'

const [clientId, clientSecret, redirectUri] = process.argv.slice(2)
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`)

const provider = new Provider('http://127.0.0.1', {
  clients: [{
    client_id: clientId,
    client_secret: clientSecret,
    redirect_uris: [redirectUri],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'client_secret_basic',
  }],
  cookies: { keys: ['for an hour on this machine'] },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  features: { devInteractions: { enabled: true }, revocation: { enabled: true } },
  issueRefreshToken: (ctx, client) => client.grantTypeAllowed('refresh_token'),
  rotateRefreshToken: true,
  pkce: { required: () => true },
  ttl: { AccessToken: 3600, AuthorizationCode: 60, RefreshToken: 86400, Grant: 86400, Session: 3600, Interaction: 600, IdToken: 3600 },
})

const told = (ctx) => ({ grant_type: ctx.oidc.params.grant_type, spent: ctx.oidc.params.refresh_token, refresh_token: ctx.body?.refresh_token })
provider.on('grant.success', (ctx) => say({ event: 'success', ...told(ctx) }))
provider.on('grant.error', (ctx, error) => say({ event: 'error', ...told(ctx), error: error.error, why: error.error_detail }))
provider.on('grant.revoked', () => say({ event: 'revoked' }))

const server = provider.listen(0, '127.0.0.1', () => say({ event: 'listening', url: `http://127.0.0.1:${server.address().port}` }))
process.stdin.on('end', () => process.exit(0)).resume() // whoever started us is gone
