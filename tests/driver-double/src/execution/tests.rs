//! Kernels written by hand, whose results are known.

use super::*;
use crate::program::Program;

/// Runs the one kernel of a module on `memory`, which is its only parameter.
fn run_on<T>(memory: &mut [T], entry: &str, body: &str, threads: u32, shared_bytes: u32) {
    let module = format!(
        ".version 9.0\n.extern .shared .align 1024 .b8 cube_shared[];\n\
         .visible .entry {entry}(\n\t.param .u64 .ptr .global .align 1 {entry}_param_0\n)\n.reqntid {threads}, 1, 1\n\
         {{\n\t.reg .pred %p<9>;\n\t.reg .b16 %rs<9>;\n\t.reg .b32 %r<99>;\n\t.reg .b64 %rd<9>;\n\
         \tld.param.b64 %rd1, [{entry}_param_0];\n\tmov.u32 %r1, %tid.x;\n{body}\n\tret;\n}}\n"
    );
    let folder = tempfile::tempdir().unwrap();
    let program = Program::load(&module, folder.path()).unwrap_or_else(|reason| panic!("{reason}"));
    let code = program.code(entry).unwrap();
    let mut address = memory.as_mut_ptr() as usize;
    record().allocated(address, size_of_val(memory));
    let launch = Launch { blocks: [1; 3], threads: [threads, 1, 1], shared_bytes };
    let mut parameters = [(&raw mut address).cast::<c_void>()];
    // SAFETY: the kernel takes one address.
    unsafe { run(&code, launch, parameters.as_mut_ptr()) };
    record().freed(address);
}

#[test]
fn threads_wait_for_each_other() {
    let mut reversed = [0_u32; 64];
    let body = "\tmul.wide.u32 %rd2, %r1, 4;\n\tmov.b64 %rd3, cube_shared;\n\tadd.s64 %rd4, %rd3, %rd2;\n\
        \tst.shared.b32 [%rd4], %r1;\n\tbar.sync 0;\n\tsub.s64 %rd5, %rd3, %rd2;\n\
        \tld.shared.b32 %r2, [%rd5+252];\n\tadd.s64 %rd6, %rd1, %rd2;\n\tst.global.b32 [%rd6], %r2;";
    run_on(&mut reversed, "reverse", body, 64, 256);
    assert_eq!(reversed.to_vec(), (0..64).rev().collect::<Vec<u32>>());
}

#[test]
fn instructions_give_what_a_card_gives() {
    let float = f32::to_bits;
    let cases = [
        ("shl.b32 %r2, 1, 40", 0),
        ("shr.u32 %r2, 0x80000000U, 31", 1),
        ("shr.s32 %r2, -8, 40", u32::MAX),
        ("shf.l.wrap.b32 %r2, 0x80000000U, 1, 33", 3),
        ("div.u32 %r2, 7, 0", u32::MAX),
        ("rem.u32 %r2, 7, 4", 3),
        ("mul.hi.u32 %r2, 0xffffffffU, 0xffffffffU", 0xffff_fffe),
        ("mad.lo.s32 %r2, -3, 4, 5", -7_i32 as u32),
        ("min.s32 %r2, -1, 1", u32::MAX),
        ("min.u32 %r2, -1, 1", 1),
        ("bfe.u32 %r2, 0xabcdU, 4, 8", 0xbc),
        ("prmt.b32 %r2, 0x11223384U, 0x55667788U, 0x8074U", 0xff84_5588),
        ("selp.b32 %r2, 5, 6, %p1", 6),
        ("add.f32 %r2, 0f3F800000, 0f33800000", float(1.0)),
        ("fma.rn.f32 %r2, 0f3F800001, 0f3F800001, 0fBF800002", 0x2880_0000),
        ("fma.rm.f32 %r2, 0f3F800000, 0f3F800000, 0fB3000000", 0x3f7f_ffff),
        ("max.f32 %r2, 0f7FC00000, 0f3F800000", float(1.0)),
        ("max.NaN.f32 %r2, 0f7FC00000, 0f3F800000", 0x7fff_ffff),
        ("copysign.f32 %r2, 0fBF800000, 0f40000000", float(-2.0)),
        ("cvt.sat.f32.f32 %r2, 0fC0000000", 0),
        ("cvt.rni.s32.f32 %r2, 0f40200000", 2),
        ("cvt.rzi.s32.f32 %r2, 0f7FC00000", 0),
        ("cvt.rn.f32.s32 %r2, -3", float(-3.0)),
        ("cvt.rn.bf16x2.f32 %r2, 0f3F800000, 0f3F808000", 0x3f80_3f80),
        ("cvt.rn.bf16x2.f32 %r2, 0f3F818000, 0f7FC00000", 0x3f82_7fff),
        ("add.bf16x2 %r2, 0x3f803f80U, 0x3f804000U", 0x4000_4040),
        ("max.NaN.f32 %r2, 0f3F800000, 0f40000000, 0fBF800000", float(2.0)),
        ("max.NaN.f32 %r2, 0f3F800000, 0f40000000, 0f7FC00000", 0x7fff_ffff),
        ("add.f32x2 %rd2, 0x400000003f800000U, 0xbf80000040400000U;\n\tmov.b64 {%r2, _}, %rd2", float(4.0)),
        ("mul.f32x2 %rd2, 0x400000003f800000U, 0xbf80000040400000U;\n\tmov.b64 {_, %r2}, %rd2", float(-2.0)),
        ("fma.rn.f32x2 %rd2, %rd2, %rd2, %rd2;\n\tmov.b64 {%r2, _}, %rd2", float(12.0)),
        ("mov.b16 %rs1, 0x4040U;\n\tsub.rn.f32.bf16 %r2, %rs1, 0f3F800000", float(2.0)),
        ("ex2.approx.ftz.f32 %r2, 0f40400000", float(8.0)),
        ("rcp.approx.ftz.f32 %r2, 0f00000001", float(f32::INFINITY)),
        ("not.b32 %r2, 0", u32::MAX),
        ("mov.b64 {_, %r2}, 0x500000003U", 5),
    ];
    let body: Vec<String> = cases
        .iter()
        .enumerate()
        .map(|(place, (text, _))| format!("\t{text};\n\tst.global.b32 [%rd1+{}], %r2;", 4 * place))
        .collect();
    let mut results = vec![0_u32; cases.len()];
    run_on(&mut results, "instructions", &body.join("\n"), 1, 0);
    for ((text, expected), result) in cases.iter().zip(results) {
        assert_eq!(result, *expected, "{text}: {result:#x}, not {expected:#x}");
    }
}

#[test]
fn comparisons_know_what_is_no_number() {
    let relations = ["eq", "lt", "le", "gt", "ge", "neu", "equ", "ltu", "leu", "gtu", "geu", "num", "nan"];
    let body: Vec<String> = relations
        .iter()
        .enumerate()
        .map(|(place, relation)| {
            let at = |pair: usize| 4 * (2 * place + pair);
            format!(
                "\tsetp.{relation}.f32 %p1, 0f3F800000, 0f40000000;\n\tselp.b32 %r2, 1, 0, %p1;\n\
                 \tst.global.b32 [%rd1+{}], %r2;\n\tsetp.{relation}.f32 %p1, 0f3F800000, 0f7FC00000;\n\
                 \tselp.b32 %r2, 1, 0, %p1;\n\tst.global.b32 [%rd1+{}], %r2;",
                at(0),
                at(1)
            )
        })
        .collect();
    let mut results = vec![[9_u32; 2]; relations.len()];
    run_on(&mut results, "comparisons", &body.join("\n"), 1, 0);
    let of_numbers = [0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0];
    let of_none = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 1];
    for (place, relation) in relations.iter().enumerate() {
        assert_eq!(results[place], [of_numbers[place], of_none[place]], "{relation}");
    }
}

#[test]
fn a_warp_multiplies_matrices() {
    // Small whole numbers, which bf16 has and whose sums are exact; b lies column by column.
    let a = |row: usize, inner: usize| ((row * 5 + inner * 3) % 7) as f32 - 3.0;
    let b = |inner: usize, column: usize| ((inner * 2 + column * 11) % 5) as f32 - 2.0;
    let narrow = |value: f32| (value.to_bits() >> 16) as u16;
    let mut memory = vec![0_u16; 3 * 512];
    for row in 0..16 {
        for column in 0..16 {
            memory[row * 16 + column] = narrow(a(row, column));
            memory[256 + column * 16 + row] = narrow(b(row, column));
        }
    }
    let registers = |first: usize, number: usize| -> String {
        (first..first + number).map(|register| format!("%r{register}")).collect::<Vec<_>>().join(", ")
    };
    let (a_at, b_at, c_at) = (registers(10, 4), registers(20, 4), registers(30, 8));
    let zero: Vec<String> = (30..38).map(|register| format!("\tmov.b32 %r{register}, 0;")).collect();
    // Each lane carries 32 bytes there and back.
    let body = format!(
        "\tmul.wide.u32 %rd2, %r1, 32;\n\tadd.s64 %rd3, %rd1, %rd2;\n\tmov.b64 %rd4, cube_shared;\n\
         \tadd.s64 %rd5, %rd4, %rd2;\n\tld.global.v4.b32 {{%r2, %r3, %r4, %r5}}, [%rd3];\n\
         \tst.shared.v4.b32 [%rd5], {{%r2, %r3, %r4, %r5}};\n\
         \tld.global.v4.b32 {{%r2, %r3, %r4, %r5}}, [%rd3+16];\n\
         \tst.shared.v4.b32 [%rd5+16], {{%r2, %r3, %r4, %r5}};\n\tbar.warp.sync -1;\n{}\n\
         \twmma.load.a.sync.aligned.row.m16n16k16.shared.bf16 {{{a_at}}}, [cube_shared], 16;\n\
         \twmma.load.b.sync.aligned.col.m16n16k16.shared.bf16 {{{b_at}}}, [cube_shared+512], 16;\n\
         \twmma.mma.sync.aligned.row.col.m16n16k16.f32.bf16.bf16.f32 {{{c_at}}}, {{{a_at}}}, {{{b_at}}}, {{{c_at}}};\n\
         \twmma.mma.sync.aligned.row.col.m16n16k16.f32.bf16.bf16.f32 {{{c_at}}}, {{{a_at}}}, {{{b_at}}}, {{{c_at}}};\n\
         \twmma.store.d.sync.aligned.row.m16n16k16.shared.f32 [cube_shared+1024], {{{c_at}}}, 16;\n\
         \tbar.warp.sync -1;\n\tld.shared.v4.b32 {{%r2, %r3, %r4, %r5}}, [%rd5+1024];\n\
         \tst.global.v4.b32 [%rd3+1024], {{%r2, %r3, %r4, %r5}};\n\
         \tld.shared.v4.b32 {{%r2, %r3, %r4, %r5}}, [%rd5+1040];\n\
         \tst.global.v4.b32 [%rd3+1040], {{%r2, %r3, %r4, %r5}};",
        zero.join("\n")
    );
    run_on(&mut memory, "multiply", &body, 32, 2048);
    for row in 0..16 {
        for column in 0..16 {
            let at = 512 + 2 * (row * 16 + column);
            let product = f32::from_bits(u32::from(memory[at]) | u32::from(memory[at + 1]) << 16);
            let expected: f32 = (0..16).map(|inner| 2.0 * a(row, inner) * b(inner, column)).sum();
            assert_eq!(product, expected, "row {row}, column {column}");
        }
    }
}

#[test]
fn what_is_not_known_refuses_the_module() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |instruction: &str| {
        let module =
            format!(".visible .entry odd(\n)\n{{\n\t.reg .b32 %r<3>;\n\t{instruction};\n\tret;\n}}\n");
        Program::load(&module, folder.path()).err().unwrap_or_else(|| panic!("{instruction} is taken"))
    };
    for instruction in [
        "shfl.sync.idx.b32 %r1, %r2, 0, 31, -1",
        "atom.global.add.f32 %r1, [%rd1], %r2",
        "add.rz.f32 %r1, %r2, %r2",
        "add.ftz.f32 %r1, %r2, %r2",
        "mov.u32 %r1, %clock",
        "bar.sync 1",
    ] {
        let reason = refused(instruction);
        assert!(reason.starts_with("odd: ") && reason.contains("not known"), "{reason}");
    }
}
