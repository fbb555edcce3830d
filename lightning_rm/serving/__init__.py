"""An HTTP server for reward models, in the request forms that RLHF toolkits speak. The extra `serve` installs it."""

from importlib.util import find_spec

if missing := [package for package in ("fastapi", "uvicorn") if find_spec(package) is None]:
    raise ImportError(f"serving needs {' and '.join(missing)}; pip install 'lightning-rm[serve]'")
