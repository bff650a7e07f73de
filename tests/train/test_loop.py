"""The model, the loop around it and what it shows."""

from __future__ import annotations

import io
import os
import re
import select
import signal
import struct
import subprocess
import sys
from dataclasses import replace
from math import log2
from pathlib import Path

import pytest
import torch

from blockdsl.errors import PatternError, UserError
from xt_blocks import TransformerWrapper
from xt_blocks.train import (
    Corpus,
    LocalEngine,
    NotFinite,
    ProgressBar,
    RunFolder,
    StopRequest,
    Trainer,
    TrainSettings,
    bits_per_byte,
    build_model,
    check_lookahead,
    compile_graph,
    load_corpus,
    plot_losses,
    read_metrics,
    steps_within,
)
from xt_blocks.train.look import tokens_of
from xt_blocks.train.optimizer import make_optimizer
from xt_blocks.train.plot import smooth

SETTINGS = TrainSettings(
    pattern="a>>1 f",
    text=None,
    text_digest="",
    dim=20,
    heads=2,
    seq_len=19,
    batch=3,
    steps=60,
    minutes=None,
    lr=0.01,
    seed=5,
    device="cpu",
    threads=1,
    options={"rotary_pos_emb": True},
)


def trainer(path: Path, settings: TrainSettings, corpus: Corpus) -> Trainer:
    graph = compile_graph(settings)
    engine = LocalEngine(build_model(graph, settings.seed), settings)
    return Trainer(RunFolder.create(path, settings, graph.to_json()), engine, corpus)


def model_of(running: Trainer) -> TransformerWrapper:
    assert isinstance(running.engine, LocalEngine)
    return running.engine.model


def quiet() -> ProgressBar:
    return ProgressBar(60, 0, 57, io.StringIO())


def test_the_model_is_made_from_the_seed_alone() -> None:
    graph, tokens = compile_graph(SETTINGS), torch.arange(19)[None]
    state = torch.get_rng_state()
    first = build_model(graph, 5).eval()(tokens)
    assert first.shape == (1, 19, 256)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(8)
    assert torch.equal(first, build_model(graph, 5).eval()(tokens))
    assert not torch.equal(first, build_model(graph, 6).eval()(tokens))


def test_the_loss_falls_far_below_what_frequencies_give(tmp_path: Path, text: Path) -> None:
    settings = replace(SETTINGS, steps=150, batch=8)
    running = trainer(tmp_path / "run", settings, load_corpus([text], 19))
    with StopRequest() as stop:
        running.train(quiet(), stop)
    values = [r["val_bits_per_byte"] for r in read_metrics(running.run.metrics) if "val_bits_per_byte" in r]
    assert len(values) == 6
    assert values[0] > 7
    assert values[-1] < 3.2 < 4 < values[0]  # the text's byte unigram entropy is about 4.2


def test_training_leaves_the_callers_random_numbers_alone(tmp_path: Path, text: Path) -> None:
    running = trainer(tmp_path / "run", replace(SETTINGS, steps=2), load_corpus([text], 19))
    state = torch.get_rng_state()
    running.train(quiet(), StopRequest())
    assert torch.equal(torch.get_rng_state(), state)


def test_bits_per_byte_by_hand() -> None:
    # A model that predicts "a" with 257 of 512 and any other byte with 1 of 512, whatever came before.
    model = build_model(compile_graph(SETTINGS), 0)
    odds = torch.ones(256)
    odds[ord("a")] = 257
    with torch.no_grad():
        model.to_logits.weight.zero_()
        model.to_logits.bias.copy_(odds.log())
    text = torch.tensor(list(b"xaab" * 5), dtype=torch.uint8)
    # 19 bytes are predicted: 10 are a, 9 are not.
    expected = (10 * log2(512 / 257) + 9 * 9) / 19
    assert bits_per_byte(LocalEngine(model, SETTINGS), Corpus(text, text, "", ""), seq_len=19) == pytest.approx(
        expected, rel=1e-5
    )


def saved(running: Trainer) -> list[str]:
    return sorted(path.name for path in running.run.checkpoints.iterdir())


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, text: Path) -> None:
    running = trainer(tmp_path / "run", replace(SETTINGS, lr=1e30), load_corpus([text], 19))
    with pytest.raises(UserError, match=r"^the loss is nan at step \d+: try a lower --lr than 1e\+30$"):
        running.train(quiet(), StopRequest())
    assert "NaN" not in running.run.metrics.read_text()


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_reaches_the_weights(tmp_path: Path, text: Path) -> None:
    running = trainer(tmp_path / "run", replace(SETTINGS, steps=5), load_corpus([text], 19))
    grads = iter([1.0, torch.inf])
    model_of(running).to_logits.bias.register_hook(lambda grad: grad * next(grads))
    with pytest.raises(UserError, match=r"^the gradient's norm is (inf|nan) at step 2: try a lower --lr than "):
        running.train(quiet(), StopRequest())
    assert saved(running) == ["000000", "000001"]
    assert all(weight.isfinite().all() for weight in model_of(running).parameters())


def test_weights_that_cannot_be_evaluated_are_not_saved(tmp_path: Path, text: Path) -> None:
    running = trainer(tmp_path / "run", replace(SETTINGS, steps=5, lr=1e38), load_corpus([text], 19))
    with pytest.raises(UserError, match=r"^the validation loss is (inf|nan) at step 1: try a lower --lr than 1e\+38$"):
        running.train(quiet(), StopRequest())
    assert saved(running) == ["000000"]
    assert "NaN" not in running.run.metrics.read_text()


@pytest.mark.parametrize("pattern", ["a(causal=false)", "a f a(causal=false)>>1"])
def test_a_model_that_looks_ahead_is_refused(pattern: str) -> None:
    model = build_model(compile_graph(replace(SETTINGS, pattern=pattern)), 0)
    with pytest.raises(UserError) as caught:
        check_lookahead(model, 19)
    assert str(caught.value) == (
        "this pattern lets a position see the bytes after it, which it has to predict "
        "(as a(causal=false) does): there would be nothing to learn"
    )


@pytest.mark.parametrize("pattern", ["a f", "a>>1 f>>3", "(a & f)*2"])
def test_a_model_that_does_not_is_taken(pattern: str) -> None:
    check_lookahead(build_model(compile_graph(replace(SETTINGS, pattern=pattern)), 0), 19)


def test_a_pattern_that_reads_a_context_is_refused() -> None:
    with pytest.raises(PatternError, match="context"):
        compile_graph(replace(SETTINGS, pattern="a c f"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"causal": False}, "training a byte-level language model needs causal=true; leave it out"),
        ({"num_tokens": 300}, "training a byte-level language model needs num_tokens=256; leave it out"),
        ({"logits_dim": 300}, "training a byte-level language model needs logits_dim=none; leave it out"),
        (
            {"return_only_embed": True},
            "training a byte-level language model needs return_only_embed=false; leave it out",
        ),
        ({"max_mem_len": 5}, "training a byte-level language model needs max_mem_len=0; leave it out"),
        ({"max_seq_len": 18}, "max_seq_len=18 is less than --seq-len 19"),
    ],
)
def test_settings_that_no_byte_model_has_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        compile_graph(replace(SETTINGS, options=options))
    assert str(caught.value) == message


def test_settings_that_say_the_same_are_taken() -> None:
    options = {"causal": True, "num_tokens": 256, "max_seq_len": 40, "num_memory_tokens": 2, "emb_dim": 6}
    model = build_model(compile_graph(replace(SETTINGS, options=options)), 0)
    assert model(torch.zeros(1, 40, dtype=torch.int64)).shape == (1, 40, 256)


def test_a_model_of_any_length_is_trained_on_the_runs_length() -> None:
    options = {"max_seq_len": 0, "alibi_pos_bias": True}
    model = build_model(compile_graph(replace(SETTINGS, options=options)), 0)
    assert model.max_seq_len is None
    assert tokens_of(model, b"x" * 300).shape == (1, 300)
    unsaid = build_model(compile_graph(replace(SETTINGS, options={"max_seq_len": None})), 0)
    assert unsaid.max_seq_len == SETTINGS.seq_len


def test_weight_decay_is_for_matrices() -> None:
    model = build_model(compile_graph(SETTINGS), 0)
    decayed, plain = make_optimizer(model, 0.1).param_groups
    assert decayed["weight_decay"] > 0 == plain["weight_decay"]
    assert {p.ndim for p in decayed["params"]} == {2}
    assert {p.ndim for p in plain["params"]} == {1}
    assert sum(len(group["params"]) for group in (decayed, plain)) == len(list(model.parameters()))


def test_minutes_become_steps_and_leave_the_model_as_it_was(text: Path) -> None:
    model = build_model(compile_graph(SETTINGS), 0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    corpus = load_corpus([text], 19)
    assert steps_within(model, corpus, SETTINGS, minutes=1e-9) == 1
    assert steps_within(model, corpus, SETTINGS, minutes=0.05) > 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_first_signal_asks_and_the_second_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        assert stop.signal is None
        signal.raise_signal(signal.SIGINT)
        assert (stop.signal, stop.exit_code) == (signal.SIGINT, 130)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert stop.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_asked_to_stop_saves_after_the_step_at_hand(tmp_path: Path, text: Path) -> None:
    running, stop = trainer(tmp_path / "run", SETTINGS, load_corpus([text], 19)), StopRequest()

    class StopAtSeven(ProgressBar):
        def step(self, record: dict[str, object]) -> None:
            if record["step"] == 7:
                stop.signal = signal.SIGTERM

    running.train(StopAtSeven(60, 0, 57, io.StringIO()), stop)
    assert saved(running) == ["000000", "000007"]
    assert stop.exit_code == 143


def test_a_process_that_is_not_the_main_one_writes_no_numbers_and_stops_with_the_others(
    tmp_path: Path, text: Path
) -> None:
    running = trainer(tmp_path / "run", SETTINGS, load_corpus([text], 19))

    class Other(LocalEngine):
        main = False

        def agree(self, wish: bool) -> bool:
            assert not wish  # no signal has reached this one, and it does not watch the clock
            return running.step_done == 7

    class Silent(ProgressBar):
        def step(self, record: dict[str, object]) -> None:
            raise AssertionError

        evaluation = step

    running.engine = Other(model_of(running), SETTINGS)
    running.train(Silent(60, 0, 57, io.StringIO()), StopRequest())
    assert saved(running) == ["000000", "000007"]
    assert not running.run.metrics.exists()


@pytest.mark.parametrize("how", ["asked to stop", "by the clock"])
def test_between_evaluations_weights_that_predict_nothing_are_not_saved(
    tmp_path: Path, text: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, stop = trainer(tmp_path / "run", SETTINGS, load_corpus([text], 19)), StopRequest()

    class AtSeven(ProgressBar):
        def step(self, record: dict[str, object]) -> None:
            if record["step"] == 7:
                with torch.no_grad():
                    model_of(running).to_logits.weight.fill_(1e38)  # finite, and no loss is
                if how == "asked to stop":
                    stop.signal = signal.SIGTERM
                else:
                    monkeypatch.setattr("xt_blocks.train.loop.SECONDS_BETWEEN_SAVES", 0)

    with pytest.raises(NotFinite, match=r"^the validation loss is (nan|inf) at step 7: "):
        running.train(AtSeven(60, 0, 57, io.StringIO()), stop)
    assert saved(running) == ["000000"]


def test_progress_without_a_terminal_is_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xt_blocks.train.progress.SECONDS_BETWEEN_LINES", -1.0)
    stream = io.StringIO()
    progress = ProgressBar(steps=10, done=4, tokens_per_step=57, stream=stream)
    progress.step({"step": 5, "loss": 3.0})
    progress.step({"step": 6, "loss": 2.0})
    progress.evaluation({"step": 6, "val_bits_per_byte": 2.5})
    progress.close()
    first, second, third = stream.getvalue().splitlines()
    assert re.fullmatch(r"step 5/10  loss 3\.000 bits/byte, [\d,]+ tokens/s, 00:00 left", first)
    assert second.startswith("step 6/10  loss 2.487 bits/byte, ")  # (0.95 * 3 + 2) / 1.95
    assert third == "step 6/10  validation 2.500 bits/byte"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no pseudo-terminals")
@pytest.mark.parametrize(("columns", "bar"), [(120, True), (0, False)])
def test_progress_on_a_terminal_is_a_bar_where_it_has_a_width(columns: int, bar: bool) -> None:
    import fcntl
    import termios

    reader, writer = os.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("4H", 40, columns, 0, 0))
    with os.fdopen(writer, "w", encoding="utf-8") as stream, os.fdopen(reader, "rb", buffering=0) as terminal:
        progress = ProgressBar(steps=2, done=0, tokens_per_step=57, stream=stream)
        progress.evaluation({"step": 0, "val_bits_per_byte": 8.25})
        progress.step({"step": 1, "loss": 3.0})
        progress.step({"step": 2, "loss": 3.0})
        progress.evaluation({"step": 2, "val_bits_per_byte": 2.5})
        progress.close()
        written = b""
        while b"2.500 bits/byte\r\n" not in written and select.select([terminal], [], [], 5.0)[0]:
            written += terminal.read(65536)
    shown = written.decode()
    assert ("2/2" in shown and "loss 3.000 bits/byte" in shown and "tokens/s" in shown) is bar
    assert "step 0/2  validation 8.250 bits/byte\r\n" in shown
    assert "step 2/2  validation 2.500 bits/byte\r\n" in shown


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "loss.png"
    records = [{"step": i, "loss": 8.0 / i} for i in range(1, 50)] + [{"step": 49, "val_bits_per_byte": 1.0}]
    plot_losses(records, 4.5, path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    assert [file.name for file in tmp_path.iterdir()] == ["loss.png"]
    plot_losses([], 4.5, path)


def test_the_plot_is_drawn_whatever_backend_the_environment_names(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from xt_blocks.train import plot_losses\n"
        "plot_losses([], 4.5, pathlib.Path(sys.argv[1])); print(os.environ['MPLBACKEND'])"
    )
    backend = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    ran = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "loss.png"], env=os.environ | backend, capture_output=True, check=False
    )
    assert (ran.returncode, ran.stdout.decode().strip()) == (0, backend["MPLBACKEND"]), ran.stderr.decode()
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_smoothing_is_a_mean_that_forgets() -> None:
    assert smooth([3.0] * 500) == pytest.approx([3.0] * 500)
    assert smooth([1.0, 2.0]) == [1.0, 2.0]
    smoothed = smooth([0.0] * 100 + [1.0] * 100)
    assert 0 < smoothed[100] < 0.5 < smoothed[110] < 1


def test_a_pattern_that_reads_a_condition_is_refused() -> None:
    with pytest.raises(UserError, match="norms or layer scales of this pattern read a condition"):
        compile_graph(replace(SETTINGS, pattern="a f(use_adaptive_rmsnorm)"))
