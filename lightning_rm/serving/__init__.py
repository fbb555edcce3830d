"""An HTTP server for reward models, in the request forms that RLHF toolkits speak. The extra `serve` installs it."""
