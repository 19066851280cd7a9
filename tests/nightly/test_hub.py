"""The hub's own client against a server on this machine: what was fetched once needs no network again, and what breaks
off is said."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import torch

from vit_walkthrough.weights.published import load_pretrained
from vit_walkthrough.widgets import explore_published

SHA = "0" * 40


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """One repository, the files of hub.folder, in as much of the hub's protocol as a download needs."""
    constants = pytest.importorskip("huggingface_hub.constants")
    hub = SimpleNamespace(folder=tmp_path / "repository", fetched=[], breaks_off=None)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            _, _, path = self.path.partition("/someone/vit")
            file = hub.folder / path.rsplit("/", 1)[-1]
            listed = [{"type": "file", "path": each.name, "size": each.stat().st_size, "oid": each.name}
                      for each in hub.folder.iterdir()]  # fmt: skip
            if "/api/" in self.path:
                content = json.dumps(listed if path.startswith("/tree") else {"id": "someone/vit", "sha": SHA}).encode()
            else:
                content = file.read_bytes() if file.is_file() else None
                hub.fetched += [file.name] if self.command == "GET" else []
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.send_header("ETag", f'"{file.name}"')
            self.send_header("X-Repo-Commit", SHA)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write((content or b"")[: hub.breaks_off])

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.close = lambda: (server.shutdown(), server.server_close())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", address)
    settings = dict(ENDPOINT=address, HUGGINGFACE_CO_URL_TEMPLATE=template)
    settings |= dict(HF_HUB_CACHE=str(tmp_path / "cache"), HF_HUB_OFFLINE=False)
    for name, setting in settings.items():
        monkeypatch.setattr(constants, name, setting)
    return hub


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_repository_is_fetched_once_and_then_needs_no_network(hub, peer, file):
    """It has no preprocessor, and only one file of weights: the absence of others is not asked of the network."""
    timm = peer("timm.models")
    theirs = timm.create_model("test_vit", img_size=32, num_classes=5).eval()
    timm.save_for_hf(theirs, hub.folder, safe_serialization=file == "model.safetensors")
    images = torch.rand(2, 3, 32, 32)
    loaded = load_pretrained("someone/vit")
    torch.testing.assert_close(loaded.model(images), theirs(images), rtol=0, atol=1e-4)
    assert sorted(hub.fetched) == ["config.json", file]
    hub.close()
    assert torch.equal(load_pretrained("someone/vit").model(images), loaded.model(images))


def test_a_file_that_breaks_off_is_said_in_the_panel_and_fetched_again_the_next_time(hub, peer):
    timm = peer("timm.models")
    timm.save_for_hf(timm.create_model("test_vit", img_size=32, num_classes=5), hub.folder, safe_serialization=True)
    panel, hub.breaks_off = explore_published(), 5000  # the config is shorter
    before = panel.picture.value
    panel.press("someone/vit", None)
    assert "someone/vit" in panel.message.value
    assert panel.picture.value == before
    hub.breaks_off = None
    panel.press("someone/vit", None)
    assert panel.message.value == ""
    assert "someone/vit" in panel.text
