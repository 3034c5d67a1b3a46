"""The two faces over HTTP: providers' deliveries on the public listener, everything else on the private one."""
