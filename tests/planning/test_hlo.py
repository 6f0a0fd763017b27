"""Collectives read from the text of compiled programs, on snippets of it."""

import pytest

from stepcoder_jax.planning import hlo

MESH = {"data": 1, "fsdp": 4, "tensor": 2}
LOOP = """HloModule jit_learn, is_scheduled=true

%add (x: bf16[], y: bf16[]) -> bf16[] {
  %x = bf16[] parameter(0)
  ROOT %sum = bf16[] add(%x, %y)
}

%fused (p: s32[]) -> pred[] {
  %p = s32[]{:T(128)} parameter(0)
  %limit = s32[]{:T(128)} constant(32)
  ROOT %lt = pred[]{:T(512)} compare(%p, %limit), direction=LT
}

%inner_cond.1 (a: (s32[], bf16[8,16])) -> pred[] {
  %a = (s32[]{:T(128)}, /*index=1*/bf16[8,16]{1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[] get-tuple-element(%a), index=0
  ROOT %less = pred[] fusion(%i), kind=kLoop, calls=%fused
}

%inner.1 (b: (s32[], bf16[8,16])) -> (s32[], bf16[8,16]) {
  %b = (s32[], bf16[8,16]) parameter(0)
  %w = bf16[8,4]{1,0} convert(%b), metadata={op_name="jit(learn)/o_proj/dot_general"}
  %whole = bf16[8,16]{1,0:T(8,128)(2,1)} all-gather(%w), replica_groups=[2,4]<=[4,2]T(1,0), dimensions={1}
  ROOT %out = (s32[], bf16[8,16]) tuple(%i, %whole)
}

ENTRY %main.5 (c: f32[64]) -> f32[64] {
  %c = f32[64]{0} parameter(0)
  %loop = (s32[], bf16[8,16]) while(%t), condition=%inner_cond.1, body=%inner.1
  %known = (s32[], bf16[8,16]) while(%t), condition=%none, body=%inner.1, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %all = f32[64]{0} all-reduce(%c), replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add, metadata={op_name="jit(learn)/psum"}
}
"""  # noqa: E501 (as XLA prints it)


def test_a_loop_multiplies_what_it_holds():
    """bf16[8,16] is 256 bytes, of which three quarters come from the other three."""
    first, *rest = hlo.collectives(LOOP, MESH)
    assert first == hlo.Collective(
        "all-gather", "bf16", "fsdp", 32 * 192, 32, "jit(learn)/o_proj/dot_general"
    )
    assert rest == [
        first._replace(received=3 * 192, trips=3),
        hlo.Collective("all-reduce", "f32", "tensor", 256, 1, "jit(learn)/psum"),
    ]
    joined = hlo.total([first, *rest])
    assert [x.received for x in joined] == [35 * 192, 256] and joined[0].trips == 35
    assert hlo.received(joined) == 35 * 192 + 256


@pytest.mark.parametrize(
    ("groups", "group", "axis"),
    [
        ("replica_groups=mesh['x'=4,'y'=2] {'x'}", [0, 2, 4, 6], "fsdp"),
        ("replica_groups=mesh['x'=4,'y'=2] {'y'}", [0, 1], "tensor"),
        ("replica_groups=mesh['x'=4,'y'=2] {'x','y'}", list(range(8)), "fsdp+tensor"),
        ("replica_groups=mesh['x'=8] {'x':(2)4}", [0, 1, 2, 3], "fsdp+tensor"),
        ("replica_groups=mesh['x'=8] {'x':(1)4}", [0, 2, 4, 6], "fsdp"),
        ("replica_groups=[4,2]<=[8]", [0, 1], "tensor"),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", [0, 2, 4, 6], "fsdp"),
        ("replica_groups={{1,3,5,7},{0,2,4,6}}", [1, 3, 5, 7], "fsdp"),
        ("replica_groups={}", list(range(8)), "fsdp+tensor"),
        ("source_target_pairs={{0,2},{2,4}}", [0, 2], "fsdp"),
    ],
)
def test_groups_in_every_way_that_xla_prints_them(groups, group, axis):
    rest = f"%x), channel_id=1, {groups}, use_global_device_ids=true"
    assert hlo.group_of(rest, 8) == group
    assert hlo.axis_of(group, MESH) == axis


@pytest.mark.parametrize(
    ("line", "kind", "received"),
    [
        ("f32[4]{0} reduce-scatter(%p), replica_groups=[2,4]<=[4,2]T(1,0)", "", 3 * 16),
        ("f32[16]{0} all-to-all(%p), replica_groups=[2,4]<=[4,2]T(1,0)", "", 48),
        (
            "(f32[4]{0}, f32[4]{0}, u32[], u32[]) collective-permute-start(%p), "
            "source_target_pairs={{0,2}}",
            "collective-permute",
            16,
        ),
        (
            "(f32[4]{0}, f32[16]{0}) all-gather-start(%p), "
            "replica_groups=[2,4]<=[4,2]T(1,0)",
            "all-gather",
            48,
        ),
    ],
)
def test_what_each_kind_receives(line, kind, received):
    text = f"ENTRY %main (p: f32[16]) -> f32[16] {{\n  ROOT %x = {line}\n}}\n"
    (found,) = hlo.collectives(text, MESH)
    assert found.received == received and found.axis == "fsdp"
    assert found.kind == (kind or line.split(" ")[1].split("(")[0])


def test_the_end_of_what_has_begun_and_a_group_of_one_count_nothing():
    text = (
        "ENTRY %main (p: f32[16]) -> f32[16] {\n"
        "  %a = f32[16]{0} all-gather-done(%s)\n"
        "  %b = f32[16]{0} all-gather(%p), replica_groups={{0},{1}}\n"
        "  ROOT %c = f32[16]{0} async-done(%s), calls=%main\n}\n"
    )
    assert hlo.collectives(text, MESH) == []


def test_the_branch_that_receives_most_is_counted():
    text = (
        "%small (p: f32[4]) -> f32[4] {\n"
        "  ROOT %x = f32[4]{0} all-reduce(%p), replica_groups={{0,1}}\n}\n"
        "%large (p: f32[4]) -> f32[4] {\n"
        "  ROOT %x = f32[4]{0} all-reduce(%p), replica_groups={{0,2,4,6}}\n}\n"
        "ENTRY %main (p: f32[4]) -> f32[4] {\n"
        "  ROOT %y = f32[4]{0} conditional(%i, %p, %p), "
        "branch_computations={%small, %large}\n}\n"
    )
    (found,) = hlo.collectives(text, MESH)
    assert found.axis == "fsdp" and found.received == 2 * 16 * 3 / 4
    text = text.replace(
        "branch_computations={%small, %large}",
        "true_computation=%small, false_computation=%large",
    )
    assert hlo.collectives(text, MESH) == [found]


def test_bytes_of_printed_shapes():
    assert hlo.arrays("(bf16[2,3]{1,0:T(8,128)(2,1)}, s32[], pred[4]{0})") == [
        ("bf16", 12),
        ("s32", 4),
        ("pred", 4),
    ]
    assert hlo.arrays("s4[3]{0}") == [("s4", 2)]


def test_a_collective_spread_over_a_chain_of_fusions_counts_once():
    link = (
        "%step.{n} (p: bf16[4]) -> bf16[16] {{\n"
        "  ROOT %g = bf16[16]{{0}} all-gather(%p), channel_id={channel}, "
        'replica_groups=[2,4]<=[4,2]T(1,0), frontend_attributes={{chain_id="0"}}\n}}\n'
    )
    text = "".join(
        link.format(n=n, channel=channel) for n, channel in ((1, 7), (2, 7), (3, 8))
    )
    text += "ENTRY %main (p: bf16[4]) -> bf16[16] {\n"
    for n in (1, 2, 3):
        text += f"  %f.{n} = bf16[16]{{0}} fusion(%p), kind=kCustom, calls=%step.{n}\n"
    found = hlo.collectives(text + "}\n", MESH)
    assert [x.chain for x in found] == ["7", "8"] and hlo.received(found) == 2 * 24
    alone = hlo.collectives(text.replace("chain_id", "other") + "}\n", MESH)
    assert len(alone) == 3


def test_a_window_that_counts_by_two_has_half_the_trips():
    text = (
        "%cond (a: (f32[4], u32[])) -> pred[] {\n"
        "  %limit = u32[] constant(8)\n  %a = (f32[4], u32[]) parameter(0)\n"
        "  %i = u32[] get-tuple-element(%a), index=1\n"
        "  ROOT %lt = pred[] compare(%i, %limit), direction=LT\n}\n"
        "%body (b: (f32[4], u32[])) -> (f32[4], u32[]) {\n"
        "  %b = (f32[4], u32[]) parameter(0)\n  %two = u32[] constant(2)\n"
        "  %n = u32[] get-tuple-element(%b), index=1\n"
        "  %next = u32[] add(%n, %two)\n"
        "  %p = f32[4]{0} collective-permute(%x), source_target_pairs={{0,2}}\n"
        "  ROOT %t = (f32[4], u32[]) tuple(%p, %next)\n}\n"
        "ENTRY %main (p: f32[4]) -> f32[4] {\n"
        "  %w = (f32[4], u32[]) while(%t0), condition=%cond, body=%body\n}\n"
    )
    (found,) = hlo.collectives(text, MESH)
    assert (found.trips, found.received) == (4, 64)
    (found,) = hlo.collectives(text.replace("constant(2)", "constant(1)"), MESH)
    assert found.trips == 8
