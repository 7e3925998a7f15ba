//! Writes `wgmma.cuh`: Hopper's warpgroup products, one function per form that a kernel uses. A function of 64 x 256
//! results has 128 operands that must be numbered without a slip, so no hand writes them.

/// The header that [`header`] writes, as checked in.
pub(crate) const CHECKED_IN: &str = include_str!("wgmma.cuh");

/// Columns of B that kernels multiply by, per form.
const FROM_SHARED: [usize; 3] = [64, 128, 256];
const FROM_REGISTERS: [usize; 2] = [64, 128];

/// Where A comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    Shared,
    Registers,
}

/// The text of `wgmma.cuh`.
pub(crate) fn header() -> String {
    let mut text = String::from(
        "// Written by wgmma.rs, whose test compares. D (64 x columns, f32 or s32) += A·B for one warpgroup; D is cleared first where\n\
         // `accumulate` is 0. Shared operands are given by descriptor (hopper.cuh). `transpose_b`: 0 where B is stored [n][k],\n\
         // 1 where it is stored [k][n]. Thread T of 128 holds in d[i] row 16(T/32) + T%32/4 + 8(i/2%2), column 8(i/4) + 2(T%4) + i%2;\n\
         // A from registers is the same map of 16 columns, two to a word.\n\
         #pragma once\n#include \"numbers.cuh\"\n",
    );
    for (tag, number) in [("Bf16", "bf16"), ("Half", "f16")] {
        for n in FROM_SHARED {
            text += &floats(Left::Shared, tag, number, n);
        }
        for n in FROM_REGISTERS {
            text += &floats(Left::Registers, tag, number, n);
        }
    }
    text + &integers(128) + &integers(256)
}

fn floats(left: Left, tag: &str, number: &str, n: usize) -> String {
    let results = n / 2;
    let (suffix, parameter, words) = match left {
        Left::Shared => ("shared", "u64 a", 1),
        Left::Registers => ("registers", "const u32 (&a)[4]", 4),
    };
    let b = results + words;
    let (a_operand, a_inputs, transposes) = match left {
        Left::Shared => (format!("%{results}"), "\"l\"(a)".to_string(), format!("0, %{}", b + 2)),
        Left::Registers => (
            list(results, 4),
            (0..4).map(|i| format!("\"r\"(a[{i}])")).collect::<Vec<_>>().join(", "),
            format!("%{}", b + 2),
        ),
    };
    format!(
        "\ntemplate <int transpose_b> static __device__ __forceinline__ void wgmma_64x{n}x16_{suffix}({tag}, float (&d)[{results}], {parameter}, u64 b, int accumulate) {{\n    \
         asm volatile(\"{{\\n.reg .pred p;\\nsetp.ne.b32 p, %{}, 0;\\n\"\n        \
         \"wgmma.mma_async.sync.aligned.m64n{n}k16.f32.{number}.{number} {}, {a_operand}, %{b}, p, 1, 1, {transposes};\\n}}\"\n        \
         : {}\n        : {a_inputs}, \"l\"(b), \"r\"(accumulate), \"n\"(transpose_b));\n}}\n",
        b + 1,
        list(0, results),
        outputs("+f", results),
    )
}

/// Both operands in shared memory, stored with k contiguous: the only form that 8-bit numbers have.
fn integers(n: usize) -> String {
    let results = n / 2;
    format!(
        "\nstatic __device__ __forceinline__ void wgmma_64x{n}x32_s8(int (&d)[{results}], u64 a, u64 b, int accumulate) {{\n    \
         asm volatile(\"{{\\n.reg .pred p;\\nsetp.ne.b32 p, %{}, 0;\\n\"\n        \
         \"wgmma.mma_async.sync.aligned.m64n{n}k32.s32.s8.s8 {}, %{results}, %{}, p;\\n}}\"\n        \
         : {}\n        : \"l\"(a), \"l\"(b), \"r\"(accumulate));\n}}\n",
        results + 2,
        list(0, results),
        results + 1,
        outputs("+r", results),
    )
}

/// `{%first, …}` of `count` operands.
fn list(first: usize, count: usize) -> String {
    let operands: Vec<String> = (first..first + count).map(|i| format!("%{i}")).collect();
    format!("{{{}}}", operands.join(","))
}

fn outputs(constraint: &str, count: usize) -> String {
    (0..count).map(|i| format!("\"{constraint}\"(d[{i}])")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every function names its operands once and in order, and has as many as it lists.
    #[test]
    fn operands_are_numbered_without_a_slip() {
        let text = header();
        let functions: Vec<&str> = text.split("static __device__").skip(1).collect();
        assert_eq!(functions.len(), 2 * (FROM_SHARED.len() + FROM_REGISTERS.len()) + 2);
        for function in functions {
            let instruction = function.split("wgmma.mma_async").nth(1).and_then(|rest| rest.split(";").next()).unwrap();
            let mut used: Vec<usize> = instruction
                .split('%')
                .skip(1)
                .map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap())
                .collect();
            let gate = function.split("setp.ne.b32 p, %").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
            used.push(gate.parse().unwrap());
            used.sort_unstable();
            let given = function.matches("\"+").count()
                + ["\"l\"(", "\"r\"(", "\"n\"("].iter().map(|c| function.matches(c).count()).sum::<usize>();
            assert_eq!(used, (0..given).collect::<Vec<_>>(), "{function}");
            let columns: usize =
                function.split("m64n").nth(1).and_then(|rest| rest.split('k').next()).unwrap().parse().unwrap();
            assert_eq!(function.matches("\"+").count(), columns / 2);
        }
    }

    #[test]
    fn the_checked_in_header_is_what_is_written() {
        assert!(
            header() == CHECKED_IN,
            "wgmma.cuh differs: cargo test -p cuda-kernels -- --ignored rewrite_the_header"
        );
    }

    #[test]
    #[ignore = "writes wgmma.cuh"]
    fn rewrite_the_header() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/wgmma.cuh"), header()).unwrap();
    }
}
