"""The metrics file: whole lines, cut where a run resumes, a torn end forgiven."""

from __future__ import annotations

from pathlib import Path

import pytest

from xt_blocks.train.metrics import MetricsLog, read_metrics

RECORDS = [{"step": 0, "val_bits_per_byte": 8.5}, *({"step": i, "loss": 1 / i} for i in (1, 2, 3))]


def written(path: Path) -> Path:
    with MetricsLog(path, through=-1) as log:
        for record in RECORDS:
            log.write(record)
    return path


def test_every_record_comes_back(tmp_path: Path) -> None:
    assert read_metrics(written(tmp_path / "m")) == RECORDS
    assert read_metrics(tmp_path / "none") == []


def test_a_line_is_in_the_file_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "m", through=-1) as log:
        log.write(RECORDS[0])
        assert (tmp_path / "m").read_text() == '{"step": 0, "val_bits_per_byte": 8.5}\n'


@pytest.mark.parametrize("torn", ['{"step": 4, "lo', '{"step": 4, "loss": 2.5}\n{', "{}\n", "17\n", "\ufffd"])
def test_a_torn_end_is_skipped_and_overwritten(tmp_path: Path, torn: str) -> None:
    path = written(tmp_path / "m")
    path.write_text(path.read_text() + torn, encoding="utf-8")
    assert [record for record in read_metrics(path) if record["step"] < 4] == RECORDS
    with MetricsLog(path, through=3) as log:
        log.write({"step": 4, "loss": 0.5})
    assert read_metrics(path) == [*RECORDS, {"step": 4, "loss": 0.5}]
    assert path.read_text().count("\n") == 5


def test_what_came_after_the_checkpoint_is_cut(tmp_path: Path) -> None:
    path = written(tmp_path / "m")
    MetricsLog(path, through=1).__exit__(None, None, None)
    assert read_metrics(path) == RECORDS[:2]
