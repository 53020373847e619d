"""Lesson 32: several processes compute what one does, each keeps its shard, and saved checkpoints fit all of them."""

import json
import os

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from cantolyric._exercises import sharding as exercises
from cantolyric.distributed import launch
from cantolyric.distributed_files import distributed_atomic_dir
from cantolyric.errors import CantolyricError
from cantolyric.quantization import convert_to_nf4
from cantolyric.sharded_training import LAUNCH_CONFIGS, launch_config
from cantolyric.sharding import (
    load_sharded_checkpoint,
    process_memory,
    process_rows,
    rows_per_process,
    save_sharded_checkpoint,
    shard_model,
    sharded_checkpoints,
    sharded_train_step,
)


def make(tied=True, layers=2):
    torch.manual_seed(0)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=51,
            hidden_size=64,
            num_hidden_layers=layers,
            intermediate_size=64,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            tie_word_embeddings=tied,
            initializer_range=0.1,
            use_cache=False,
        )
    )


def batch(step, rows=4):
    g = torch.Generator().manual_seed(step)
    ids = torch.randint(0, 50, (rows, 9), generator=g)
    labels = ids.clone()
    for r, n in enumerate(torch.randint(1, 8, (rows,), generator=g).tolist()):
        labels[r, :n] = -100  # so many labels in one row, so many in another
    return dict(input_ids=ids, labels=labels)


def summed(model, b):
    logits = model(input_ids=b["input_ids"]).logits
    return nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), b["labels"][:, 1:].flatten(), ignore_index=-100, reduction="sum"
    )


def adapted(model, rank=5):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=8, target_modules="all-linear"))


def eight_bits(model):
    import bitsandbytes as bnb

    for name, m in list(model.named_modules()):
        if not isinstance(m, nn.Linear) or name == "lm_head":
            continue
        q = bnb.nn.Linear8bitLt(m.in_features, m.out_features, bias=False, has_fp16_weights=False)
        q.weight = bnb.nn.Int8Params(m.weight.data, requires_grad=False, has_fp16_weights=False)
        model.set_submodule(name, q)
    return model.to("cpu")


def adamw(model):
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)


KINDS = {
    "tied": make,
    "untied": lambda: make(tied=False),
    "LoRA": lambda: adapted(make()),
    "QLoRA": lambda: adapted(convert_to_nf4(make(), storage=torch.float32)),
    "QLoRA in bytes": lambda: adapted(convert_to_nf4(make())),
}

START = """
import logging, os, sys, torch, torch.distributed as dist, warnings
logging.disable(logging.WARNING)
warnings.filterwarnings("ignore")
from cantolyric.distributed import *
from cantolyric.distributed_files import *
from cantolyric.sharding import *
from cantolyric.errors import CantolyricError
sys.path.insert(0, launch_args()["tests"])
from test_sharding import *
rank, n = init_distributed()
"""
TESTS = dict(tests=os.path.dirname(os.path.abspath(__file__)))

SAME = (
    START
    + """
found = {}
for kind, make_one in KINDS.items():
    one, model = make_one(), make_one()
    size, memory = sum(p.nbytes for p in one.parameters()), process_memory(one, n, rank)
    model = shard_model(model)
    with torch.inference_mode(): model(input_ids=batch(0)["input_ids"])    # before any training
    a, b = adamw(one), adamw(model)
    losses, want = [], []
    for s in range(20):
        losses.append(sharded_train_step(model, b, [process_rows(batch(s))], summed))
        # one process, without any of the library's functions
        loss = summed(one, batch(s)) / (batch(s)["labels"][:, 1:] != -100).sum()
        loss.backward(); a.step(); a.zero_grad()
        want.append(loss.item())
    other = dict(one.named_parameters())
    off = max(float((p.full_tensor() - other[k]).abs().max()) for k, p in model.named_parameters() if p.requires_grad)
    (summed(model, process_rows(batch(0))) / 9).backward()
    found[kind] = dict(losses=losses, want=want, off=off, size=size, memory=memory)
    found[kind] |= dict(holds=local_bytes(model, b), strategy=detected_strategy(model))
    b.zero_grad()
    for m in one.modules(): m.support_avx512bf16_for_cpu = False    # its weights in another layout would be other sums
    with torch.no_grad():
        found[kind]["evaluated"] = [float(summed(model.train(mode), batch(0))) for mode in (False, False, True)]
    text = dict(max_new_tokens=4, do_sample=False, pad_token_id=0)
    ids = batch(0)["input_ids"]
    found[kind]["generates"] = [m.eval().generate(input_ids=ids, **text).tolist() for m in (one, model)]

one, model = make(), make()
units = shard_by_hand(model)
b = torch.optim.AdamW([u.shard for u in units], 1e-3)
a = adamw(one)
losses = []
for s in range(20):
    parts = process_rows(batch(s))
    in_two = [{k: v[i:i + 1] for k, v in parts.items()} for i in range(2)]
    losses.append(sharded_train_step(model, b, in_two, summed))
    (summed(one, batch(s)) / (batch(s)["labels"][:, 1:] != -100).sum()).backward(); a.step(); a.zero_grad()
whole = [u.full.untyped_storage().size() for u in units]
for u in units: u.gather()
off = max(float((p - q).abs().max()) for p, q in zip(one.parameters(), model.parameters()))
hand = dict(losses=losses, off=off, whole=whole, pieces=sum(u.shard.nbytes for u in units))

def refused(f):
    try: f()
    except CantolyricError as e: return str(e)
nf4 = lambda: adapted(convert_to_nf4(make(), storage=torch.float16))
ddp = lambda: torch.nn.parallel.DistributedDataParallel(make())
said = dict(
    cast=refused(lambda: shard_model(nf4(), param_dtype=torch.bfloat16)),
    eight=refused(lambda: shard_model(eight_bits(make()))),
    blocks=refused(lambda: shard_model(torch.nn.Linear(2, 2))),
    ddp=refused(lambda: check_strategy(ddp(), "fsdp2")),
    share=refused(lambda: rows_per_process(5)),
)
torch.manual_seed(1)
model = shard_model(adapted(make()))
b = adamw(model)
for s in range(3): sharded_train_step(model, b, [process_rows(batch(s))], summed)
save_sharded_checkpoint(launch_args()["folder"], model, b, 3, note="三")
later = [sharded_train_step(model, b, [process_rows(batch(s))], summed) for s in range(3, 6)]
# the other way round: the adapter is put on a sharded base, as in the finetune
after = adapted(shard_model(convert_to_nf4(make(), storage=torch.float32).requires_grad_(False)))
b = adamw(after)
# its gradients are not averaged yet: only the first loss is that of one process
after = [sharded_train_step(after, b, [process_rows(batch(s))], summed) for s in range(3)]
send_result(found=found, hand=hand, said=said, later=later, after=after, agreed=broadcast_from_rank0({"rank": rank}))
"""
)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    return folder, launch(SAME, 2, folder=str(folder), **TESTS).results


def test_an_adapter_on_a_base_in_pieces(two):
    for r in two[1]:
        assert r["after"][0] == pytest.approx(r["found"]["QLoRA"]["losses"][0], abs=1e-5) and r["after"][
            -1
        ] != pytest.approx(r["after"][0], abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_same_as_one_process(two, kind):
    for rank, r in enumerate(two[1]):
        x = r["found"][kind]
        assert x["losses"] == pytest.approx(x["want"], abs=1e-5) and x["off"] < 1e-5, rank
        assert x["strategy"] == "fsdp2" and x["want"][0] != pytest.approx(x["want"][-1], abs=1e-3)
        assert x["generates"][0] == x["generates"][1]
        assert x["evaluated"] == pytest.approx([x["evaluated"][0]] * 3, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_memory_is_that_of_the_formula(two, kind):
    holds = [r["found"][kind] for r in two[1]]
    for x in holds:
        assert x["holds"] == {k: x["memory"][k] for k in ("weights", "gradients", "optimizer")}
    for k in ("weights",):
        assert sum(x["holds"][k] for x in holds) == holds[0]["size"]


def test_by_hand(two):
    for r in two[1]:
        assert r["hand"]["losses"] == pytest.approx(r["found"]["tied"]["want"], abs=1e-5) and r["hand"]["off"] < 1e-5
        assert set(r["hand"]["whole"]) == {0} and r["hand"]["pieces"] == pytest.approx(
            r["found"]["tied"]["size"] / 2, abs=16
        )


def test_refusals(two):
    for r in two[1]:
        for k, words in (
            ("cast", "bnb_4bit_quant_storage=torch.bfloat16"),
            ("eight", "in 8 bits"),
            ("blocks", "no decoder blocks"),
            ("ddp", "expected the model to be distributed by fsdp2, found ddp"),
            ("share", "multiple of 2"),
        ):
            assert words in r["said"][k], k
        assert r["agreed"] == {"rank": 0}
    with pytest.raises(CantolyricError, match="no process group"):
        shard_model(make())
    with pytest.raises(CantolyricError, match="3 rows .* 2 processes"):
        process_rows(batch(0, 3), 0, 2)
    assert rows_per_process(5) == 5


def test_checkpoint_of_two_read_by_one(two):
    folder, ranks = two
    model = adapted(make())
    optimizer = adamw(model)
    optimizer.param_groups[0]["lr"] = 0.5
    assert (
        load_sharded_checkpoint(folder, model, optimizer) == dict(step=3, note="三", lr=[1e-3])
        and optimizer.param_groups[0]["lr"] == 1e-3
    )
    assert [sharded_train_step(model, optimizer, [batch(s)], summed) for s in range(3, 6)] == pytest.approx(
        ranks[0]["later"], abs=1e-5
    )
    assert {p.suffix for p in sharded_checkpoints(folder)[-1].iterdir()} == {".safetensors", ".json"}
    with pytest.raises(CantolyricError, match="of another model"):
        load_sharded_checkpoint(folder, (m := adapted(make(), 3)), adamw(m))


def test_checkpoints_are_whole_or_not_there(tmp_path, monkeypatch):
    model = make()
    optimizer = adamw(model)
    assert load_sharded_checkpoint(tmp_path, model, optimizer) == {}
    for step in (1, 2, 3):
        save_sharded_checkpoint(tmp_path, model, optimizer, step)
    assert [p.name for p in sharded_checkpoints(tmp_path)] == ["step-2", "step-3"]
    with pytest.raises(KeyboardInterrupt), distributed_atomic_dir(tmp_path / "step-4") as f:
        (f / "x").write_text("half")
        raise KeyboardInterrupt
    assert sorted(os.listdir(tmp_path)) == ["step-2", "step-3"]
    (tmp_path / "step-9.tmp").mkdir()  # of a process that was killed: it could not clean up
    (tmp_path / "step-8").mkdir()
    assert load_sharded_checkpoint(tmp_path, model, optimizer)["step"] == 3
    whole = next((tmp_path / "step-3").glob("*.safetensors"))
    whole.write_bytes(whole.read_bytes()[:1000])
    with pytest.raises(CantolyricError, match="cut short"):
        load_sharded_checkpoint(tmp_path, model, optimizer)


def test_launch_says_what_went_wrong():
    with pytest.raises(CantolyricError, match="one of 1 processes failed: KeyError: 'lyrics'"):
        launch("{}['lyrics']", 1)
    with pytest.raises(CantolyricError, match="did not end in 6 s"):
        launch("import time; time.sleep(60)", 1, limit=6)


def test_formula_for_more_processes_than_rows():
    model = adapted(make())
    held = [process_memory(model, 4, r)["weights"] for r in range(4)]
    assert sum(held) == sum(p.nbytes for p in model.parameters()) and held[0] > held[3]
    with torch.device("meta"):
        assert process_memory(make(), 2) == process_memory(make(), 2)


def test_configs(capsys):
    from accelerate.commands.config.config_args import load_config_from_file

    from cantolyric.cli.main import main

    for gpus in LAUNCH_CONFIGS:
        config = load_config_from_file(str(launch_config(gpus)))
        assert config.num_processes == gpus and config.distributed_type.value == ("FSDP" if gpus > 1 else "NO")
        assert gpus == 1 or config.fsdp_config["fsdp_version"] == 2
        assert main(["finetune", "--launch-config", str(gpus)]) == 0
        assert capsys.readouterr().out.strip() == str(launch_config(gpus))
    assert main(["finetune", "--launch-config", "3"]) == 2 and "1, 2, 8" in capsys.readouterr().err


def test_settings_that_cannot_be_done_are_refused(monkeypatch):
    from cantolyric.sharded_training import fsdp_settings

    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert fsdp_settings() == dict(reshard_after_forward=True, activation_checkpointing=False)
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    with pytest.raises(CantolyricError, match="fsdp_offload_params"):
        fsdp_settings()


@pytest.mark.parametrize(
    "check", [exercises.check_rows_of_each, exercises.check_most_whole, exercises.check_share_lost]
)
def test_exercises_are_not_right_yet(check):
    for wrong in (lambda *a: ..., lambda *a: 0, lambda *a: 1 / 0):
        assert check(wrong).startswith("Not yet")


def test_exercises_tell_near_misses():
    assert "[2, 2, 1, 0]" in exercises.check_rows_of_each(
        lambda rows, n: [rows // n + (r < rows % n) for r in range(n)]
    )
    late = lambda times, sizes: max(
        (sum(sizes[o["unit"]] for o in times if o["start"] <= x["start"] <= o["end"]) for x in times), default=0
    )
    assert "ends as the other starts" in exercises.check_most_whole(late)
    assert exercises.check_share_lost(lambda interval, save, death: save / interval + interval / death).startswith(
        "Not yet"
    )


FINETUNE = """
import logging, os, signal, sys, warnings
logging.disable(logging.WARNING)
import transformers
from cantolyric.training import arguments, stages
from cantolyric.training.config import FinetuneConfig
from cantolyric.distributed import *
from cantolyric.distributed_files import *
from cantolyric.sharding import *
from cantolyric.sharding import detected_strategy as strategy_of
arguments.bf16_is_fast = lambda: False # to compare to more digits
given = {k: launch_args()[k] for k in ("steps", "strategy")}
sizes = dict(num_examples=32, batch_size=8, num_held_out=8, rank=4)
config = FinetuneConfig(stage="full", lr=1e-3, save_every=2, **sizes, **given)
seen, found, plain = [], {}, stages.make_trainer

def watched(*args, **kw):
    trainer = plain(*args, **kw)
    collate = trainer.data_collator
    train = {id(r) for r in trainer.train_dataset} # held-out rows go through the same collator
    def noting(rows):
        seen.extend(r["pair"]["lyrics"] for r in rows if id(r) in train)
        return collate(rows)
    trainer.data_collator = noting
    class Look(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kw):
            base = [p for n, p in trainer.model.named_parameters() if "lora_" not in n]
            found.update(base=sum(getattr(p, "_local_tensor", p).nbytes for p in base))
            found.update(
                strategy=strategy_of(trainer.model_wrapped), checkpointing=trainer.args.gradient_checkpointing
            )
            first = os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0"
            if launch_args().get("dies") and process_rank() == 1 and state.global_step == 3 and first:
                os.kill(os.getpid(), signal.SIGKILL)
    trainer.add_callback(Look())
    return trainer

stages.make_trainer = watched
r = stages.run_stage(config, folder=launch_args()["folder"])
files = sorted(os.listdir(launch_args()["folder"]))
send_result(losses=r.losses, evals=r.evals, seen=seen, after=r.held_out["after"], gates=r.gates, files=files, **found)
"""


def finetuned(folder, n, strategy="fsdp", steps=4, **how):
    "What each process did, and the adapter."
    folder.mkdir()
    ranks = launch(FINETUNE, n, folder=str(folder), strategy=strategy, steps=steps, **how).results
    return ranks, load_file(folder / "adapter/adapter_model.safetensors")


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return finetuned(tmp_path_factory.mktemp("one") / "run", 1)


def same_finetune(one, ranks, adapter, tolerance=1e-5):
    want = one[0][0]
    for r in ranks:
        assert r["losses"] == pytest.approx(want["losses"], abs=tolerance)
        assert [step for step, _ in r["evals"]] == [step for step, _ in want["evals"]] and [
            v for _, v in r["evals"]
        ] == pytest.approx([v for _, v in want["evals"]], abs=tolerance)
        assert r["after"] == pytest.approx(want["after"], abs=tolerance) and r["gates"] == ranks[0]["gates"]
        assert r["files"] == ["adapter", "full"]
    assert (
        max(float((adapter[k] - v).abs().max()) for k, v in one[1].items()) < tolerance
        and adapter.keys() == one[1].keys()
    )


def test_finetune_in_two_processes(one, tmp_path):
    "FSDP2 through `finetune` itself: the same adapter, half of the base on each, no example twice."
    ranks, adapter = finetuned(tmp_path / "two", 2)
    same_finetune(one, ranks, adapter)
    assert [r["strategy"] for r in ranks] == ["fsdp2"] * 2 and [2 * r["base"] for r in ranks] == [one[0][0]["base"]] * 2
    shares = [set(r["seen"]) for r in ranks]
    assert (
        [len(r["seen"]) for r in ranks] == [16, 16]
        and not shares[0] & shares[1]
        and shares[0] | shares[1] == set(one[0][0]["seen"])
    )


@pytest.mark.slow
def test_finetune_plain_data_parallel(one, tmp_path):
    ranks, adapter = finetuned(tmp_path / "ddp", 2, "ddp")
    same_finetune(one, ranks, adapter)
    assert [r["strategy"] for r in ranks] == ["ddp"] * 2 and [r["base"] for r in ranks] == [one[0][0]["base"]] * 2


@pytest.mark.slow
def test_finetune_by_accelerate_launch(one, tmp_path):
    "The shipped config, in fp32 to compare."
    config = tmp_path / "2cpu.yaml"
    config.write_text(launch_config(2).read_text().replace("mixed_precision: bf16", "mixed_precision: 'no'"))
    ranks, adapter = finetuned(tmp_path / "accelerated", 2, config=str(config))
    same_finetune(one, ranks, adapter)
    assert all(r["strategy"] == "fsdp2" and r["checkpointing"] for r in ranks)


@pytest.mark.slow
def test_finetune_goes_on_after_a_kill(tmp_path):
    "One of two processes dies after the third of five steps; all start again from the second."
    want, adapter = finetuned(tmp_path / "quiet", 2, steps=5)
    ranks, other = finetuned(tmp_path / "killed", 2, steps=5, dies=True, restarts=1)
    same_finetune((want, adapter), ranks, other, 1e-6)
    assert len(ranks[0]["seen"]) < len(want[0]["seen"])


@pytest.mark.slow
def test_checkpoint_of_two_read_by_four(two, tmp_path):
    script = (
        START
        + """
torch.manual_seed(5)
model = shard_model(adapted(make()))
b = adamw(model)
found = load_sharded_checkpoint(launch_args()["folder"], model, b)
losses = [sharded_train_step(model, b, [process_rows(batch(s))], summed) for s in range(3, 6)]
save_sharded_checkpoint(launch_args()["to"], model, b, 6)
send_result(losses=losses, found=found, empty=sum(p.to_local().numel() == 0 for p in model.parameters()))
"""
    )
    ranks = launch(script, 4, folder=str(two[0]), to=str(tmp_path), **TESTS).results
    assert ranks[0]["losses"] == pytest.approx(two[1][0]["later"], abs=1e-5) and ranks[3]["empty"] > 0
    model = adapted(make())  # and what four wrote, some of them with empty pieces, is read by one
    assert load_sharded_checkpoint(tmp_path, model, adamw(model))["step"] == 6


@pytest.mark.slow
def test_command_in_two_processes(tmp_path):
    "The whole run under torchrun; only one of the processes prints, and it reports the strategy."
    script = (
        "import sys\nfrom cantolyric.cli.main import main\nfrom cantolyric.distributed import launch_args\n"
        "sizes = '--num-examples 256 --steps 16 --batch-size 8 --max-gib 16'.split()\n"
        "sys.exit(main(['finetune', '--json', '--runs-dir', launch_args()['folder'], *sizes]) // 2)"
    )
    done = launch(script, 2, limit=900, folder=str(tmp_path))
    told = json.loads(done.output)
    assert len(told["lyrics"]) == 3 and sorted(os.listdir(tmp_path)) == ["tiny"]
    assert all(
        c["right"]
        for x in told["lyrics"]
        for line in x.get("lines", [])
        for c in line
        if isinstance(c, dict) and "right" in c
    )
