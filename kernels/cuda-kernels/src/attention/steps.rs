//! The steps of the forward ladder: which text each launches, with what constants, tiles and memory.

use crate::{Arch, Rung, Source};

/// The step of three kernels.
pub(super) const UNFUSED: &str = "a1_unfused";

/// How a rung gets its tensors and its work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Addresses; a block per tile of rows, head and sequence.
    Addresses,
    /// Addresses; a block per head and sequence takes all tiles of rows.
    Serial,
    /// Three kernels and scratch memory.
    Unfused,
    /// Tensor maps; a block per tile of rows, head and sequence.
    Maps,
    /// Tensor maps; blocks take pieces of work from a line, as many blocks as pieces.
    Line,
    /// The same with one block per multiprocessor.
    Persistent,
    /// The same, heads in sections whose keys and values stay in the L2 cache.
    Sections,
}

/// How a rung is launched.
pub(super) struct Step {
    pub(super) rung: Rung,
    pub(super) form: Form,
    pub(super) entry: &'static str,
    pub(super) text: &'static Source,
    /// Constants beside head dim and number.
    pub(super) defines: &'static [(&'static str, u32)],
    /// Query rows of a block.
    pub(super) rows: usize,
    pub(super) threads: usize,
    /// Dynamic shared memory for a head dim, bytes.
    pub(super) shared: fn(usize) -> usize,
}

macro_rules! texts {
    ($($name:ident = $file:literal;)*) => {
        $(pub(super) static $name: Source = Source { name: concat!("attention/", $file), text: include_str!($file) };)*
    };
}
texts! {
    ROW_PER_WARP = "row_per_warp.cu";
    SCORES = "unfused_scores.cu";
    SOFTMAX = "unfused_softmax.cu";
    PRODUCT = "unfused_product.cu";
    TILED = "tiled_f32.cu";
    MMA = "mma.cu";
    LDMATRIX = "ldmatrix_swizzle.cu";
    PIPELINED = "pipelined.cu";
    WGMMA = "wgmma_tma.cu";
    SPECIALISED = "specialised.cu";
}

/// A tile of 128 rows, two places of 64 keys and as many of values.
fn pipelined_shared(dim: usize) -> usize {
    (128 + 4 * 64) * dim * 2
}

/// Five tiles of 128 rows on a boundary of 1024 bytes, and barriers.
fn hopper_shared(dim: usize) -> usize {
    5 * 128 * dim * 2 + 1024 + 128
}

/// A step before Hopper, that takes addresses.
const fn plain(
    name: &'static str,
    idea: &'static str,
    (text, entry): (&'static Source, &'static str),
    (rows, threads): (usize, usize),
    shared: fn(usize) -> usize,
) -> Step {
    let rung = Rung { name, idea, needs: Arch::Sm80 };
    Step { rung, form: Form::Addresses, entry, text, defines: &[], rows, threads, shared }
}

/// A step of the warp-specialised kernel.
const fn specialised(
    name: &'static str,
    idea: &'static str,
    form: Form,
    defines: &'static [(&'static str, u32)],
) -> Step {
    let rung = Rung { name, idea, needs: Arch::Sm90a };
    let entry = "attention_specialised";
    Step { rung, form, entry, text: &SPECIALISED, defines, rows: 128, threads: 384, shared: hopper_shared }
}

const OVERLAPPED: &[(&str, u32)] = &[("PING_PONG", 1), ("OVERLAP", 1)];

/// From the simplest to the fastest.
pub(super) static LADDER: [Step; 13] = [
    plain(
        "a0_row_per_warp",
        "online softmax, one warp per row",
        (&ROW_PER_WARP, "attention_row_per_warp"),
        (4, 128),
        |_| 0,
    ),
    Step {
        form: Form::Unfused,
        ..plain(UNFUSED, "scores and weights in device memory", (&SCORES, "attention_unfused_scores"), (16, 256), |_| 0)
    },
    plain("a2_tiled_f32", "fused: tiles in shared memory, f32", (&TILED, "attention_tiled_f32"), (64, 256), |dim| {
        (2 * 64 * (dim + 4) + 64 * 68) * 4
    }),
    plain("a3_mma", "tensor cores, fragments by plain loads", (&MMA, "attention_mma"), (64, 128), |dim| {
        3 * 64 * (dim + 8) * 2
    }),
    plain(
        "a4_ldmatrix_swizzle",
        "ldmatrix without bank conflicts",
        (&LDMATRIX, "attention_ldmatrix_swizzle"),
        (64, 128),
        |dim| 3 * 64 * dim * 2,
    ),
    Step {
        form: Form::Serial,
        ..plain(
            "a5_serial_rows",
            "cp.async double buffer; one block per head, all rows in turn",
            (&PIPELINED, "attention_pipelined"),
            (128, 256),
            pipelined_shared,
        )
    },
    plain(
        "a5_pipelined",
        "the same, a block per 128 rows",
        (&PIPELINED, "attention_pipelined"),
        (128, 256),
        pipelined_shared,
    ),
    Step {
        rung: Rung { name: "a6_wgmma_tma", idea: "warpgroup products, tensor copies", needs: Arch::Sm90a },
        form: Form::Maps,
        entry: "attention_wgmma_tma",
        text: &WGMMA,
        defines: &[],
        rows: 128,
        threads: 256,
        shared: hopper_shared,
    },
    specialised(
        "a7_specialised",
        "a producer, barriers, registers moved",
        Form::Line,
        &[("PING_PONG", 0), ("OVERLAP", 0)],
    ),
    specialised("a8_ping_pong", "two consumers take turns", Form::Line, &[("PING_PONG", 1), ("OVERLAP", 0)]),
    specialised("a9_overlapped", "softmax while values are multiplied", Form::Line, OVERLAPPED),
    specialised("a10_persistent", "one block per multiprocessor, longest first", Form::Persistent, OVERLAPPED),
    Step {
        shared: |dim| hopper_shared(dim) + 128 * dim * 2,
        ..specialised(
            "a11_hidden_ends",
            "results leave in the background, the next queries come early, heads in sections that fit L2",
            Form::Sections,
            &[("PING_PONG", 1), ("OVERLAP", 1), ("BACKGROUND", 1)],
        )
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_fits_the_architectures() {
        for step in &LADDER {
            for dim in [64, 128] {
                for arch in Arch::ALL.into_iter().filter(|&arch| arch >= step.rung.needs) {
                    let bytes = (step.shared)(dim);
                    assert!(bytes <= arch.shared_bytes() as usize, "{} takes {bytes} bytes on {arch}", step.rung.name);
                }
            }
        }
    }
}
