"""The picture of the page to write patterns in, as docs/edit.md shows it: `python -m tests.docs.photograph`.

Taken in a Chromium without a window, whose letters are those of the machine: it is no text that a test could compare.
"""

from __future__ import annotations

import tempfile
import threading
from base64 import b64decode
from pathlib import Path
from typing import Any

from .pictures import PICTURES

FILE = PICTURES / "edit.png"
SIZE = 1280, 640
TEXT = """# a decoder: every fourth layer sees all tokens
set dim=1024, heads=16, num_tokens=50257;
set max_seq_len=8192, causal, rotary_pos_emb;
set use_rmsnorm, ff_glu, ff_swish;
near = a(max_attend_past=1024, kv_heads=4) f;
far = a(kv_heads=4) f(mult=8);
(near*3 far)*6
"""


def photograph(driver: Any, folder: Path) -> bytes:
    """The page with a pattern, and the caret on a use of a definition, as PNG."""
    from blockdsl.editor.server import EditedFile, Server

    from ..edit.browser import opened, wide

    server = Server(EditedFile(TEXT, "model.pattern", folder / "model.pattern"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        page = opened(driver, server.address, folder, "model")
        wide(driver, *SIZE)
        page.settled()
        page.caret(TEXT.rindex("far"))
        page.until(lambda: page.names(".lit[data-node]"), "the blocks of the caret")
        return b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def main() -> None:
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    from ..draw.test_browser import BROWSER, DRIVER, FLAGS

    options = ChromeOptions()
    options.binary_location = str(BROWSER)
    with tempfile.TemporaryDirectory() as folder:
        for flag in [*FLAGS, f"--user-data-dir={folder}/profile"]:
            options.add_argument(flag)
        driver = Chrome(options, ChromeService(DRIVER))
        try:
            FILE.write_bytes(photograph(driver, Path(folder)))
        finally:
            driver.quit()


if __name__ == "__main__":
    main()
