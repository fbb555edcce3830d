"""`lightning-rm serve`: a reward model over HTTP, until Ctrl-C."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig

from lightning_rm.commands._config import plain_console, require_all
from lightning_rm.commands._entry import command
from lightning_rm.devices import device_here, device_of


def serve_model(cfg: DictConfig) -> None:
    """Load a model and serve it.

    Args:
        cfg: `conf/serve.yaml`, composed.

    Raises:
        ValueError: if there is no such model, a setting is wrong, or the server's packages are not installed.
    """
    require_all(cfg)
    if missing := [package for package in ("fastapi", "uvicorn") if find_spec(package) is None]:
        raise ValueError(f"serving needs {' and '.join(missing)}; pip install 'lightning-rm[serve]'")
    from lightning_rm.scoring.load import load_model
    from lightning_rm.serving.serve import ServeOptions, reward_app
    from lightning_rm.serving.server import run_server

    options = ServeOptions(
        name=cfg.name,
        api_key=cfg.api_key,
        max_items=cfg.max_items,
        max_tokens=cfg.max_tokens,
        max_body_bytes=cfg.max_body_bytes,
        batch_tokens=cfg.batch_tokens,
        layout=cfg.layout.layout,
        normalize=cfg.normalize,
    )
    device = device_of(cfg.accelerator) or device_here()
    console = plain_console()
    console.print(f"loading {cfg.model}", soft_wrap=True)
    loaded = load_model(cfg.model, weights=cfg.weights, dtype=cfg.dtype, device=device)
    names = tuple(dict.fromkeys([str(cfg.model), str(Path(cfg.model).resolve())]))
    app = reward_app(loaded.model, loaded.tokenizer, options, names)

    def ready(url: str) -> None:
        told = f"serving {names[0] if cfg.name is None else cfg.name} on {device} at {url}"
        console.print(f"{told}; Ctrl-C answers what is in flight and ends", soft_wrap=True)

    run_server(app, cfg.host, cfg.port, ready)
    console.print("all requests are answered; stopped")


@command("serve")
def main(cfg: DictConfig) -> None:
    """Run as the Hydra entry point."""
    serve_model(cfg)


if __name__ == "__main__":
    main()
