"""The counts for a compiled program, on pieces of HLO text as written by XLA."""
# ruff: noqa: E501  XLA does not break its lines

import pytest

from experiments.benchmarks.compiled import counting, hlo

KB = 1024
GPU = """\
HloModule jit_f, is_scheduled=true

%fused_reduce (param_0: bf16[16,32]) -> f32[32] {
  %param_0 = bf16[16,32]{1,0} parameter(0)
  %convert.1 = f32[16,32]{1,0} convert(%param_0)
  %constant.1 = f32[] constant(0)
  ROOT %reduce.1 = f32[32]{0} reduce(%convert.1, %constant.1), dimensions={0}, to_apply=%add
}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

ENTRY %main (x.1: bf16[16,32]) -> (bf16[16,32], f32[32]) {
  %x.1 = bf16[16,32]{1,0} parameter(0), sharding={replicated}, metadata={op_name="x (y) z"}
  %fusion.1 = f32[32]{0} fusion(%x.1), kind=kInput, calls=%fused_reduce
  %cudnn.1 = (bf16[16,32]{1,0}, u8[64]{0}) custom-call(%x.1, /*index=1*/%fusion.1), custom_call_target="__cudnn$convForward"
  %get-tuple-element.1 = bf16[16,32]{1,0} get-tuple-element(%cudnn.1), index=0
  ROOT %tuple.1 = (bf16[16,32]{1,0}, f32[32]{0}) tuple(%get-tuple-element.1, %fusion.1)
}
"""


def entry(*lines, others=""):
    """Returns the kernels of a program with these lines."""
    body = "\n".join(f"  {line}" for line in lines)
    text = f"{others}\nENTRY %main (x: f32[8,128]) -> f32[8,128] {{\n{body}\n}}\n"
    return counting.kernels(hlo.read(text))


def sizes(kernels):
    return [(each.name, each.read, each.written) for each in kernels]


def test_a_kernel_reads_its_operands_and_writes_its_results():
    kernels = counting.kernels(hlo.read(GPU))
    assert sizes(kernels) == [("fusion.1", KB, 128), ("cudnn.1", KB + 128, KB + 64)]
    assert [each.kind for each in kernels] == [
        "fusion kInput",
        "custom-call __cudnn$convForward",
    ]
    assert str(kernels[0].reads[0].array) == "bf16[16,32]"


def test_the_types_of_a_tpu_are_read():
    layout = "{1,0:T(8,128)(2,1)S(1)}"
    arrays = hlo.arrays(f"(bf16[8,128]{layout}, f32[]{{:T(128)}}, u32[]{{:S(2)}}, token[])")
    assert [(str(each), each.bytes, each.in_hbm) for each in arrays] == [
        ("bf16[8,128]", 2 * KB, False),
        ("f32[]", 4, True),
        ("u32[]", 4, False),
    ]


def test_what_lies_in_the_vmem_of_a_tpu_is_not_read_from_hbm_again():
    """A copy of x to VMEM (read), used there twice (free), and a copy of y back (written)."""
    kernels = entry(
        "%x = f32[8,128]{1,0:T(8,128)} parameter(0)",
        "%copy-start = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%x)",
        "%copy-done = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%copy-start)",
        "%abs = f32[8,128]{1,0:T(8,128)S(1)} abs(%copy-done)",
        "%add = f32[8,128]{1,0:T(8,128)S(1)} add(%copy-done, %abs)",
        "%copy-start.1 = (f32[8,128]{1,0:T(8,128)}, f32[8,128]{1,0:T(8,128)S(1)}, u32[]{:S(2)}) copy-start(%add)",
        "ROOT %copy-done.1 = f32[8,128]{1,0:T(8,128)} copy-done(%copy-start.1)",
    )
    assert sizes(kernels) == [
        ("copy-start", 4 * KB, 0),
        ("abs", 0, 0),
        ("add", 0, 0),
        ("copy-start.1", 0, 4 * KB),
    ]
    assert [each.is_copy for each in kernels] == [True, False, False, True]


def test_a_copy_of_a_slice_reads_the_slice():
    """Two halves of x, which ConcatBitcast joins without any work."""
    half = "{1,0:T(4,128)S(1)}"
    start = (
        f"((f32[8,128]{{1,0:T(8,128)}}), f32[4,128]{half}, s32[]{{:S(2)}}) slice-start(%x)"
    )
    kernels = entry(
        "%x = f32[8,128]{1,0:T(8,128)} parameter(0)",
        f"%slice-start = {start}, slice={{[0:4], [0:128]}}",
        f"%slice-start.1 = {start}, slice={{[4:8], [0:128]}}",
        f"%slice-done = f32[4,128]{half} slice-done(%slice-start)",
        f"%slice-done.1 = f32[4,128]{half} slice-done(%slice-start.1)",
        '%whole = f32[8,128]{1,0:T(8,128)S(1)} custom-call(%slice-done, %slice-done.1), custom_call_target="ConcatBitcast"',
        "ROOT %y = f32[8,128]{1,0:T(8,128)} negate(%whole)",
    )
    assert sizes(kernels) == [
        ("slice-start", 2 * KB, 0),
        ("slice-start.1", 2 * KB, 0),
        ("y", 0, 4 * KB),
    ]


FUSED_SLICE = """
%fused (p: bf16[64,128], q: bf16[64,128]) -> f32[8,128] {
  %p = bf16[64,128]{1,0} parameter(0)
  %q = bf16[64,128]{1,0} parameter(1)
  %convert = f32[64,128]{1,0} convert(%p)
  %slice.1 = f32[8,128]{1,0} slice(%convert), slice={[0:8], [0:128]}
  %slice.2 = f32[8,128]{1,0} slice(%convert), slice={[8:16], [0:128]}
  %slice.3 = f32[8,128]{1,0} slice(%q), slice={[8:16], [0:128]}
  %abs = bf16[64,128]{1,0} abs(%q)
  ROOT %sum = f32[8,128]{1,0} add(%slice.1, %slice.2)
}
"""


def test_a_fusion_reads_of_what_it_slices_the_slices_alone():
    """Counted in the sliced array's dtype; but other uses of an operand read all of it."""
    kernels = entry(
        "%x = bf16[64,128]{1,0} parameter(0)",
        "%z = bf16[64,128]{1,0} parameter(1)",
        "ROOT %fusion = f32[8,128]{1,0} fusion(%x, %z), kind=kLoop, calls=%fused",
        others=FUSED_SLICE,
    )
    assert [each.bytes for each in kernels[0].reads] == [2 * 2 * KB, 16 * KB]


def test_the_same_memory_is_read_once_under_two_shapes():
    kernels = entry(
        "%x = f32[8,128]{1,0} parameter(0)",
        "%flat = f32[1024]{0} bitcast(%x)",
        "ROOT %y = f32[8,128]{1,0} custom-call(%x, %flat)",
    )
    assert sizes(kernels) == [("y", 4 * KB, 4 * KB)]


UPDATE = """
%fused (p: f32[64,128], q: f32[8,128], i: s32[]) -> f32[64,128] {
  %p = f32[64,128]{1,0} parameter(0)
  %q = f32[8,128]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %abs = f32[8,128]{1,0} abs(%q)
  %zero = s32[] constant(0)
  ROOT %update = f32[64,128]{1,0} dynamic-update-slice(%p, %abs, %i, %zero)
}
"""


def test_an_update_in_place_moves_the_update_alone():
    lines = (
        "%x = f32[64,128]{1,0} parameter(0)",
        "%z = f32[8,128]{1,0} parameter(1)",
        "%i = s32[] parameter(2)",
    )
    fused = "ROOT %y = f32[64,128]{1,0} fusion(%x, %z, %i), kind=kLoop, calls=%fused"
    plain = "ROOT %y = f32[64,128]{1,0} dynamic-update-slice(%x, %z, %i)"
    for line in (fused, plain):
        assert sizes(entry(*lines, line, others=UPDATE)) == [("y", 4 * KB + 4, 4 * KB)]


LOOP = """
%body (p: (f32[8,128], s32[])) -> (f32[8,128], s32[]) {
  %p = (f32[8,128]{1,0}, s32[]) parameter(0)
  %x = f32[8,128]{1,0} get-tuple-element(%p), index=0
  %i = s32[] get-tuple-element(%p), index=1
  %abs = f32[8,128]{1,0} abs(%x)
  ROOT %tuple = (f32[8,128]{1,0}, s32[]) tuple(%abs, %i)
}
"""


@pytest.mark.parametrize(
    ("known", "times"),
    [(', backend_config={"known_trip_count":{"n":"5"}}', 5), ("", 1)],
)
def test_the_body_of_a_loop_counts_as_often_as_it_runs(known, times):
    kernels = entry(
        "%x = (f32[8,128]{1,0}, s32[]) parameter(0)",
        f"ROOT %y = (f32[8,128]{{1,0}}, s32[]) while(%x), condition=%more, body=%body{known}",
        others=LOOP,
    )
    assert sizes(kernels) == [("abs", times * 4 * KB, times * 4 * KB)]
    assert kernels[0].times == times


BRANCHES = """
%less (p: f32[8,128]) -> f32[8,128] {
  ROOT %p = f32[8,128]{1,0} parameter(0)
}

%more (q: f32[8,128]) -> f32[8,128] {
  %q = f32[8,128]{1,0} parameter(0)
  ROOT %abs = f32[8,128]{1,0} abs(%q)
}
"""


@pytest.mark.parametrize(
    "branches",
    [
        "branch_computations={%less, %more}",
        "true_computation=%more, false_computation=%less",
    ],
)
def test_of_branches_the_one_that_moves_most_counts(branches):
    kernels = entry(
        "%x = f32[8,128]{1,0} parameter(0)",
        "%p = pred[] parameter(1)",
        f"ROOT %y = f32[8,128]{{1,0}} conditional(%p, %x, %x), {branches}",
        others=BRANCHES,
    )
    assert [each.name for each in kernels] == ["abs"]


def test_what_is_called_counts_as_its_kernels():
    for call in ("call(%x), to_apply=%more", "async-start(%x), calls=%more"):
        kernels = entry(
            "%x = f32[8,128]{1,0} parameter(0)",
            f'ROOT %y = f32[8,128]{{1,0}} {call}, metadata={{op_name="jit(f)"}}',
            others=BRANCHES,
        )
        assert [each.name for each in kernels] == ["abs"]


def test_collectives_count_by_what_a_device_gives():
    kernels = entry(
        "%x = f32[64]{0} parameter(0)",
        "%z = f32[8]{0} parameter(1)",
        "%all-reduce = (f32[64]{0}, f32[8]{0}) all-reduce(%x, %z), channel_id=1, to_apply=%add",
        "%all-gather-start = (f32[8]{0}, f32[64]{0}) all-gather-start(%z), dimensions={0}",
        "%all-gather-done = f32[64]{0} all-gather-done(%all-gather-start)",
        "ROOT %y = f32[64]{0} abs(%all-gather-done)",
    )
    sent = [sum(array.size for array in each.sent) for each in kernels]
    assert sent == [72, 8, 0]
    assert [each.read for each in kernels] == [0, 0, 256]


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no line that begins with ENTRY"):
        hlo.read("module @jit_f {}")
