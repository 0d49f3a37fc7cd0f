"""Reading scheduled programs, and the plan of a loss where no compiler is needed."""

import dataclasses
import json
import math
import sys
from unittest import mock

import jax
import numpy as np
import pytest

from experiments.pods import __main__ as script
from experiments.pods import (
    bundles,
    chips,
    hlo,
    loops,
    parts,
    plan,
    problems,
    report,
    roofline,
    scheduled,
    steps,
    summary,
    table,
    topologies,
)
from experiments.pods.settings import Settings

# A product and collectives; a loop of 3 around one of 4 whose count is carried along,
# with a branch inside.
TPU = """\
HloModule step, is_scheduled=true

%fused_product (a: bf16[64,128], b: bf16[32,128]) -> f32[64,32] {
  %a = bf16[64,128]{1,0} parameter(0)
  %b = bf16[32,128]{1,0} parameter(1)
  ROOT %convolution.1 = f32[64,32]{1,0} convolution(%a, %b), dim_labels=bf_oi->bf, metadata={op_name="jit(step)/jvp(loss)/dot_general"}
}

%cheap (x: f32[64,32]) -> f32[64,32] {
  %x = f32[64,32]{1,0} parameter(0)
  ROOT %copy.1 = f32[64,32]{1,0} copy(%x), backend_config={"estimated_cycles":"5"}
}

%dear (x.1: f32[64,32]) -> f32[64,32] {
  %x.1 = f32[64,32]{1,0} parameter(0)
  ROOT %copy.2 = f32[64,32]{1,0} copy(%x.1), backend_config={"estimated_cycles":"7"}
}

%inner_body (p: (s32[], f32[64,32], s32[])) -> (s32[], f32[64,32], s32[]) {
  %p = (s32[], f32[64,32]{1,0}, s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %v = f32[64,32]{1,0} get-tuple-element(%p), index=1
  %n = s32[] get-tuple-element(%p), index=2
  %which = pred[] compare(%i, %n), direction=EQ
  %branch = f32[64,32]{1,0} conditional(%which, %v, %v), branch_computations={%cheap, %dear}
  %add.1 = f32[64,32]{1,0:T(8,128)S(1)} fusion(%branch), kind=kLoop, calls=%cheap, metadata={op_name="jit(step)/transpose(jvp(encoder))/add"}, backend_config={"estimated_cycles":"100"}
  ROOT %t = (s32[], f32[64,32]{1,0}, s32[]) tuple(%i, %add.1, %n)
}

%inner_condition (q: (s32[], f32[64,32], s32[])) -> pred[] {
  %q = (s32[], f32[64,32]{1,0}, s32[]) parameter(0)
  %j = s32[] get-tuple-element(%q), index=0
  %m = s32[] get-tuple-element(%q), index=2
  ROOT %less = pred[] compare(%j, %m), direction=LT
}

%outer_body (r: (s32[], f32[64,32], s32[])) -> (s32[], f32[64,32], s32[]) {
  %r = (s32[], f32[64,32]{1,0}, s32[]) parameter(0)
  %k = s32[] get-tuple-element(%r), index=0
  %w = f32[64,32]{1,0} get-tuple-element(%r), index=1
  %four = s32[] get-tuple-element(%r), index=2
  %zero = s32[] constant(0)
  %start = (s32[], f32[64,32]{1,0}, s32[]) tuple(%zero, %w, %four)
  %while.2 = (s32[], f32[64,32]{1,0}, s32[]) while(%start), condition=%inner_condition, body=%inner_body
  %out = f32[64,32]{1,0} get-tuple-element(%while.2), index=1
  %permute = f32[64,32]{1,0} collective-permute(%out), source_target_pairs={{0,1},{1,0}}, metadata={op_name="jit(step)/jvp(loss)/ppermute"}
  ROOT %u = (s32[], f32[64,32]{1,0}, s32[]) tuple(%k, %permute, %four)
}

%outer_condition (s: (s32[], f32[64,32], s32[])) -> pred[] {
  %s = (s32[], f32[64,32]{1,0}, s32[]) parameter(0)
  %l = s32[] get-tuple-element(%s), index=0
  %three = s32[] constant(3)
  ROOT %less.1 = pred[] compare(%l, %three), direction=LT
}

ENTRY %main (x.2: bf16[64,128], y: bf16[16,128]) -> f32[64,32] {
  %x.2 = bf16[64,128]{1,0} parameter(0), metadata={op_name="x"}
  %y = bf16[16,128]{1,0} parameter(1), metadata={op_name="y"}
  %all-gather = bf16[32,128]{1,0} all-gather(%y), replica_groups={{0,1}}, dimensions={0}, metadata={op_name="jit(step)/jvp(loss)/all_gather"}
  %product = f32[64,32]{1,0} fusion(%x.2, %all-gather), kind=kOutput, calls=%fused_product, backend_config={"estimated_cycles":"1000"}
  %first = s32[] constant(0)
  %bound = s32[] constant(4)
  %begin = (s32[], f32[64,32]{1,0}, s32[]) tuple(%first, %product, %bound)
  %while.1 = (s32[], f32[64,32]{1,0}, s32[]) while(%begin), condition=%outer_condition, body=%outer_body
  %all-reduce-start = f32[64,32]{1,0} all-reduce-start(%product), to_apply=%add, metadata={op_name="jit(step)/transpose(jvp(encoder))/dot_general"}
  %all-reduce-done = f32[64,32]{1,0} all-reduce-done(%all-reduce-start)
  ROOT %result = f32[64,32]{1,0} get-tuple-element(%while.1), index=1
}
"""  # noqa: E501

TRIANGLE = """\
HloModule triangle, is_scheduled=true

%fused_less (c: s32[]) -> pred[] {
  %c = s32[] parameter(0)
  %ten = s32[] constant(10)
  ROOT %less = pred[] compare(%c, %ten), direction=LT
}

%condition (p: (s32[], f32[8])) -> pred[] {
  %p = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %fused = pred[] fusion(%i), kind=kLoop, calls=%fused_less
}

%body (q: (s32[], f32[8])) -> (s32[], f32[8]) {
  %q = (s32[], f32[8]{0}) parameter(0)
  %j = s32[] get-tuple-element(%q), index=0
  %v = f32[8]{0} get-tuple-element(%q), index=1
  %w = f32[8]{0} copy(%v)
  ROOT %t = (s32[], f32[8]{0}) tuple(%j, %w)
}

ENTRY %main (start: s32[], x: f32[8]) -> f32[8] {
  %start = s32[] parameter(0)
  %x = f32[8]{0} parameter(1)
  %begin = (s32[], f32[8]{0}) tuple(%start, %x)
  %loop = (s32[], f32[8]{0}) while(%begin), condition=%condition, body=%body
  ROOT %y = f32[8]{0} get-tuple-element(%loop), index=1
}
"""

GPU = """\
HloModule gpu, is_scheduled=true

%sliced (a: f32[1000000,4], b: f32[8,4], i: s32[]) -> f32[1000000,4] {
  %a = f32[1000000,4]{1,0} parameter(0)
  %b = f32[8,4]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %update = f32[1000000,4]{1,0} dynamic-update-slice(%a, %b, %i, %zero)
}

%gemm (p: bf16[1024,512], q: bf16[512,2048]) -> f32[1024,2048] {
  %p = bf16[1024,512]{1,0} parameter(0)
  %q = bf16[512,2048]{1,0} parameter(1)
  ROOT %dot.1 = f32[1024,2048]{1,0} dot(%p, %q), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY %main (a.1: f32[1000000,4], b.1: f32[8,4], i.1: s32[], p.1: bf16[1024,512], q.1: bf16[512,2048]) -> f32[1024,2048] {
  %a.1 = f32[1000000,4]{1,0} parameter(0)
  %b.1 = f32[8,4]{1,0} parameter(1)
  %i.1 = s32[] parameter(2)
  %p.1 = bf16[1024,512]{1,0} parameter(3)
  %q.1 = bf16[512,2048]{1,0} parameter(4)
  %in_place = f32[1000000,4]{1,0} fusion(%a.1, %b.1, %i.1), kind=kLoop, calls=%sliced
  %all-gather-start = ((f32[8,4]{1,0}), (f32[16,4]{1,0})) all-gather-start(%b.1), dimensions={0}
  %all-gather-done = f32[16,4]{1,0} all-gather-done(%all-gather-start)
  ROOT %gemm.1 = f32[1024,2048]{1,0} fusion(%p.1, %q.1), kind=kCustom, calls=%gemm
}
"""  # noqa: E501

LISTING = """\
LB: loop body
= control target key end

     0   :  { %s1 = inlined_call_operand.hbm [shape: f32[2]] }
   0x1   :  { %s2 = smov 0 }
   0x2 LB: > { %s3 = sadd.s32 1, %s2 }
   0x3   : > { %305 = sbr.rel (%p4) target = $region40 }
   0x4   : > { %v1 = vld [vmem:[%s1] sm:$0xff] }
   0x5   : > { %v2 = vadd.f32 %v1, %v1 }
   0x6   : > { %v3 = vadd.f32 %v2, %v1 }
   0x7 PF: > { %p25 = scmp.ge.s32.totalorder %s28, 18 /* loop exit test */ }
   0x8   :  { %27 = sbr.rel (!%p25) target = $region143 }
   0x9   : > { %s4 = smov %s3 } /* End region 3 */
"""
MEMORY = dict.fromkeys(
    ("arguments", "outputs", "aliased", "temporaries", "peak"), 2**20
)


def cycles(visit):
    return visit.times * scheduled.cycles(visit.op)


@pytest.fixture(scope="module")
def tpu():
    program = hlo.parse(TPU)
    return program, loops.visits(program, cycles)


def test_cycles_are_those_of_all_runs_of_the_dearest_branches(tpu):
    _, seen = tpu
    assert sum(map(cycles, seen)) == 1000 + 3 * 4 * (100 + 7)
    assert not any(visit.guessed for visit in seen)


def test_a_loop_over_a_triangle_runs_half_as_often_as_its_bound_and_is_a_guess():
    program = hlo.parse(TRIANGLE)
    [copy] = [v for v in loops.visits(program, cycles) if v.op.kind == "copy"]
    assert copy.times == 5.5
    assert copy.guessed


def test_a_count_that_the_compiler_tells_is_taken():
    told = 'condition=%condition, backend_config={"known_trip_count":{"n":"55"}}'
    program = hlo.parse(TRIANGLE.replace("condition=%condition", told))
    [copy] = [v for v in loops.visits(program, cycles) if v.op.kind == "copy"]
    assert (copy.times, copy.guessed) == (55, False)


def test_products_are_counted_with_the_dtype_of_their_operands(tpu):
    program, seen = tpu
    found = [p for visit in seen for p in scheduled.products(program, visit)]
    assert found == [scheduled.Product(2 * 64 * 32 * 128, "bf16", "default")]


def flops(line, **shapes):
    """Of an operation whose operands have these shapes."""
    head = ", ".join(f"{name}: {shape}" for name, shape in shapes.items())
    given = [f"  %{name} = {shape} parameter(0)" for name, shape in shapes.items()]
    text = [f"ENTRY %main ({head}) -> f32[] {{", *given, f"  ROOT {line}", "}"]
    program = hlo.parse("\n".join(text))
    [visit] = loops.visits(program, cycles)
    [product] = scheduled.products(program, visit)
    return product.flops


def test_a_convolution_does_not_multiply_what_is_beyond_the_border():
    found = flops(
        "%c = f32[2,5,5,7]{3,2,1,0} convolution(%x, %k), "
        "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f",
        x="f32[2,5,5,4]",
        k="f32[3,3,4,7]",
    )
    within = 3 * 5 - 2  # pairs of a place and a tap, of each axis
    np.testing.assert_allclose(found, 2 * 2 * 7 * 4 * within**2)


def test_a_strided_convolution_and_its_gradients_cost_the_same():
    forward = flops(
        "%c = f32[8,16,16,32]{3,2,1,0} convolution(%x, %k), "
        "window={size=2x2 stride=2x2}, dim_labels=b01f_01io->b01f",
        x="f32[8,32,32,4]",
        k="f32[2,2,4,32]",
    )
    of_input = flops(
        "%c = f32[8,32,32,4]{3,2,1,0} convolution(%g, %k), "
        "window={size=2x2 pad=1_1x1_1 lhs_dilate=2x2}, dim_labels=b01f_01oi->b01f",
        g="f32[8,16,16,32]",
        k="f32[2,2,4,32]",
    )
    of_kernel = flops(
        "%c = f32[2,2,4,32]{3,2,1,0} convolution(%x, %g), "
        "window={size=16x16 rhs_dilate=2x2}, dim_labels=f01b_i01o->01bf",
        x="f32[8,32,32,4]",
        g="f32[8,16,16,32]",
    )
    assert forward == of_input == of_kernel == 2 * 8 * 16 * 16 * 32 * 2 * 2 * 4


def test_products_of_the_libraries_of_a_gpu_are_counted():
    gemm = flops(
        '%g = f32[64,32]{1,0} custom-call(%x, %y), custom_call_target="__cublas$gemm", '
        'backend_config={"lhs_contracting_dimensions":["1"]}',
        x="bf16[64,128]",
        y="bf16[128,32]",
    )
    assert gemm == 2 * 64 * 128 * 32
    window = "window={size=1x1}, dim_labels=b01f_o01i->b01f"
    shapes = ("f32[8,4,4,16]", "f32[32,1,1,16]", "f32[8,4,4,32]")
    call = "%c = ({}, u8[0]) custom-call(%x, %y), {}, custom_call_target={}"
    kinds = {
        "__cudnn$convForward": (0, 1, 2),
        "__cudnn$convBackwardInput": (2, 1, 0),
        "__cudnn$convBackwardFilter": (0, 2, 1),
    }
    for target, (x, y, result) in kinds.items():
        line = call.format(shapes[result], window, f'"{target}"')
        assert flops(line, x=shapes[x], y=shapes[y]) == 2 * 8 * 4 * 4 * 16 * 32, target


def test_collectives_are_counted_through_loops_in_their_part(tpu):
    program, seen = tpu
    found = scheduled.collectives(program, seen, parts.of(program))
    told = {(c.kind, c.dtype, c.part): (c.number, c.bytes) for c in found}
    assert told == {
        ("collective-permute", "f32", "loss"): (3, 3 * 64 * 32 * 4),
        ("all-gather", "bf16", "loss"): (1, 32 * 128 * 2),
        ("all-reduce", "f32", "sum of gradients"): (1, 64 * 32 * 4),
    }


def test_buffers_are_what_is_written_to_main_memory(tpu):
    program, seen = tpu
    found = scheduled.buffers(seen, parts.of(program))
    # The product, the sum that starts, the permuted array and the copy of a branch; not
    # what the fusion in the loop leaves in vector memory.
    assert sum(b.number for b in found if b.dims == (64, 32)) == 4
    assert found[0].bytes == 64 * 32 * 4


def test_a_kernel_takes_the_longest_of_launch_bytes_and_products():
    program = hlo.parse(GPU)
    chip = chips.CHIPS["h100"]
    seen = {v.op.name: v for v in loops.visits(program, lambda _: 0.0)}
    update = roofline.kernel(program, seen["in_place"], chip)
    assert update.seconds == roofline.LAUNCH
    assert update.bytes == 2 * 8 * 4 * 4  # the update is read and written
    product = roofline.kernel(program, seen["gemm.1"], chip)
    assert product.flops == 2 * 1024 * 512 * 2048
    moved = 2 * (1024 * 512 + 512 * 2048) + 4 * 1024 * 2048
    times = (
        roofline.LAUNCH,
        moved / roofline.CACHED,
        product.flops / (roofline.REACHED * chip.flops),
    )
    assert math.isclose(product.seconds, max(times))
    assert roofline.kernel(program, seen["all-gather-start"], chip).seconds == 0


def test_what_starts_and_ends_later_is_one_collective():
    program = hlo.parse(GPU)
    seen = loops.visits(program, lambda _: 0.0)
    [found] = scheduled.collectives(program, seen, parts.of(program))
    assert found[:4] == ("all-gather", "f32", 1, 16 * 4 * 4)


def test_a_report_says_all_that_was_measured():
    found = plan.measure(TPU, MEMORY, chips.CHIPS["v5e"], 2, 1e6)
    settings = Settings(problem="clip", n=4096)
    told = {
        "settings": dataclasses.asdict(settings),
        "chip": chips.CHIPS["v5e"]._asdict(),
        "chips": 2,
        "versions": {"libtpu": "0"},
        "compile_cpu_seconds": 1.0,
        "bundles": [bundles.read("row_lse", LISTING)._asdict()],
        **found,
    }
    text = report.text(json.loads(json.dumps(told)))
    assert "python -m experiments.pods --problem clip --n 4096" in text
    assert "| collective-permute |" in text
    assert f"{found['cycles']:.4g} cycles" in text
    assert found["seconds"]["limit"] == 1e6 / 197e12
    links = found["seconds"]["links"]
    gathered, summed = 32 * 128 * 2, 64 * 32 * 4
    expected = gathered / 2 + 2 * summed / 2 + 3 * summed * 4
    np.testing.assert_allclose(links, expected / 200e9)


def test_a_summary_has_a_line_and_a_command_for_each_plan(tmp_path, capsys):
    told = {
        "settings": dataclasses.asdict(Settings(problem="simclr", n=512)),
        "chip": chips.CHIPS["v5e"]._asdict(),
        "chips": 2,
        **plan.measure(TPU, MEMORY, chips.CHIPS["v5e"], 2, None),
    }
    (tmp_path / "results.json").write_text(json.dumps(told))
    summary.main(summary.Summary((str(tmp_path),)))
    said = capsys.readouterr().out
    assert "| resnet18, 32 px | 512 |" in " ".join(said.split())
    assert "1  python -m experiments.pods --problem simclr --n 512" in said


def test_bundles_are_counted_inside_the_loop_and_between_its_branches():
    found = bundles.read("row_lse", LISTING)
    assert found == bundles.Schedule("row_lse", 10, 7, (3, 2, 2), 18)


def test_a_folder_of_listings_names_its_kernels(tmp_path):
    analysis = 'total 10: custom-call(%x), custom_call_target="tpu_custom_call"'
    (tmp_path / "17-row_lse.1-71-schedule-analysis_final_bundles.txt").write_text(
        analysis
    )
    (tmp_path / "17-row_lse.1-72-final_bundles.txt").write_text(LISTING)
    (tmp_path / "17-fusion.2-71-schedule-analysis_final_bundles.txt").write_text("")
    [found] = bundles.bundles(tmp_path)
    assert found.name == "row_lse"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("jit(step)/jvp(encoder)/Dense_0/dot_general", "encoder forward"),
        ("jit(step)/transpose(jvp(encoder))/checkpoint/mul", "encoder backward"),
        ("jit(step)/jvp(augmentation)/vmap/sin", "augmentation"),
        ("jit(step)/optimizer/mul", "optimizer"),
        ("jit(step)/jvp(encoderless)/mul", "other"),
        ("", "other"),
    ],
)
def test_names_tell_the_part(name, part):
    assert parts.of_name(name) == part


@pytest.mark.parametrize("topology", ["v5e", "v9:2x2", "v5e:2x", "2x2"])
def test_a_topology_that_is_written_otherwise_is_refused(topology):
    with pytest.raises(ValueError, match=r"topology must be one of v4, v5e.*got"):
        topologies.chip(topology)


def test_a_compiler_that_is_missing_is_named_with_its_extra():
    with (
        mock.patch.dict(sys.modules, {"libtpu": None}),
        pytest.raises(ImportError, match=r"'v5e:2x2' needs libtpu: .*jaxcl\[aot\]"),
    ):
        topologies.devices("v5e:2x2")


def test_an_option_that_a_loss_does_not_take_is_refused():
    def loss(z, *, temperature):
        return z

    with pytest.raises(ValueError, match="tile must be left out, since loss"):
        problems.options(Settings(tile=5), loss)


def test_settings_that_nothing_reads_are_refused():
    with pytest.raises(ValueError, match="encoder must be left at 'resnet18'"):
        script.main(Settings(problem="clip", encoder="resnet50"))


@pytest.mark.parametrize("name", problems.LOSSES)
def test_every_loss_is_traced_by_rows_over_all_axes_of_a_mesh(name):
    auto = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=auto)
    s = Settings(problem=name, n=64, d=8, tile=4)
    problem = problems.of_loss(s, mesh)
    value, gradients = jax.eval_shape(problem.fn, *problem.arguments)
    assert value.shape == ()
    moving = [x for x in problem.arguments if x.dtype != np.int32]
    assert [g.shape for g in gradients] == [x.shape for x in moving]
    with pytest.raises(ValueError, match="n must be a multiple of 8 chips"):
        problems.of_loss(dataclasses.replace(s, n=60), mesh)


@pytest.mark.parametrize("part", ["step", "encoder", "augmentation", "loss"])
def test_a_step_of_simclr_is_traced_whole_and_in_parts(part):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    s = Settings(problem="simclr", n=16, size=8, part=part)
    problem = steps.of_step(s, mesh)
    result = jax.eval_shape(problem.fn, *problem.arguments)
    if part == "step":
        state, metrics = result
        assert metrics["loss"].shape == ()
        assert jax.tree.structure(state) == jax.tree.structure(problem.arguments[0])


def test_a_step_of_two_towers_learns_a_temperature():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    s = Settings(problem="towers", n=16, size=32, depth=2, width=64, length=5, chunks=2)
    problem = steps.of_step(s, mesh)
    state, _ = jax.eval_shape(problem.fn, *problem.arguments)
    assert state.params["loss"]["temperature"].shape == ()
    with pytest.raises(ValueError, match="n must be a multiple of 8 chips times 2"):
        steps.of_step(dataclasses.replace(s, n=24), mesh)
    with pytest.raises(ValueError, match="'towers' augment nothing"):
        steps.of_step(dataclasses.replace(s, part="augmentation"), mesh)


def test_a_table_has_a_line_for_each_combination_that_fits():
    asked = table.Table(exchanges=("gather", "ring"), tiles=(256, 512), n=(4096, 8192))
    plans = list(table.combinations(asked))
    assert len(plans) == 2 * 2 * 2 * 2
    assert {s.impl for s in plans} == {None}
    assert len(table.line(plans[0], None)) == len(table.HEAD)
    found = {
        **plan.measure(TPU, MEMORY, chips.CHIPS["v5e"], 2, 1e6),
        "compile_cpu_seconds": 1.0,
    }
    assert len(table.line(plans[0], found)) == len(table.HEAD)
    assert "--n 4096 8192 --exchanges gather ring --tiles" in table.command(asked)
