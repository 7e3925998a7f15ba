//! The FlashAttention-1 order: keys outside, queries inside; kept to count and time what the second order saves.
//!
//! For every key tile, for every query tile that sees it: m' = max(m, rowmax S), l' = e^(m−m')·l + Σ e^(S−m'),
//! o ← (e^(m−m')·l·o + e^(S−m')·V) / l'. o is normalised after each step, as the algorithm stores it in memory, and is
//! read and written once per key tile. A sequence's groups run in parallel; nothing else can.

use std::ops::Range;

use cpu_kernels::Cpu;
use cpu_kernels::attention::scale_row;
use model::HeadShape;

use super::online::{Partial, Work};
use super::tiles::QueryTile;
use super::{Call, Flash, FlashSpec};

pub(super) fn forward(flash: &Flash, call: &Call<'_>) {
    let len = |span: usize| call.kv.len(call.layer, call.step.spans[span].seq);
    let tiles = flash.spec.query_tiles(call.shape, call.step, len);
    let heads: Vec<&[QueryTile]> = tiles.chunk_by(|a, b| (a.span, a.group) == (b.span, b.group)).collect();
    flash.cpu.parallel(heads.len(), &|i| head(flash, call, heads[i]));
}

/// Values of all buffers that a pass over one sequence uses at a time.
pub(super) fn scratch_len(spec: &FlashSpec, shape: &HeadShape, threads: usize, rows: usize) -> usize {
    threads.min(spec.groups(shape)) * head_len(spec, shape, rows)
}

fn head_len(spec: &FlashSpec, shape: &HeadShape, rows: usize) -> usize {
    let group = spec.group(shape);
    let n = rows.min(spec.tile_rows(shape)) * group;
    n * (shape.key_dim + spec.key_tile) + Partial::len(rows * group, shape.value_dim)
}

/// The query tiles of one sequence and group.
fn head(flash: &Flash, call: &Call<'_>, tiles: &[QueryTile]) {
    let (Some(first), Some(last)) = (tiles.first(), tiles.last()) else { return };
    let (group, d, d_v) = (call.group, call.shape.key_dim, call.shape.value_dim);
    let rows = first.rows.start..last.rows.end;
    let mut buffer = flash.work.take(head_len(&flash.spec, call.shape, rows.len()));
    let (tile_buffer, rest) = buffer.split_at_mut(first.rows.len() * group * (d + flash.spec.key_tile));
    let (q, scores) = tile_buffer.split_at_mut(first.rows.len() * group * d);
    let mut all = Partial::new(rest, rows.len() * group);
    all.clear();
    let (start, mut seen) = (rows.start, vec![0..0; first.rows.len()]);
    let end = tiles.iter().map(|tile| tile.keys.end).max().unwrap_or(0);
    for keys in flash.spec.key_tiles(0..end) {
        let visiting = |tile: &&QueryTile| tile.keys.start <= keys.start && keys.start < tile.keys.end;
        for tile in tiles.iter().filter(visiting) {
            let stacked = (tile.rows.start - start) * group..(tile.rows.end - start) * group;
            let (q, seen) = (&mut q[..stacked.len() * d], &mut seen[..tile.rows.len()]);
            let mut sums = all.rows(stacked, d_v);
            flash.pack_queries(call, tile, q);
            let work = Work { q, scores, seen };
            flash.attend(call, tile, keys.clone(), work, &mut sums, denormalise);
            normalise(flash, call, seen, &mut sums);
        }
    }
    for tile in tiles {
        flash.write(call, tile, all.rows((tile.rows.start - start) * group..(tile.rows.end - start) * group, d_v).o);
    }
}

/// e^(m−m')·l·o: the sum that the normalised o stood for, at the new m.
fn denormalise(cpu: &Cpu, o: &mut [f32], f: f32, l_before: f32) {
    scale_row(cpu, o, f * l_before);
}

/// o ← o / l', in the rows that saw some of the keys; the others keep their bits.
fn normalise(flash: &Flash, call: &Call<'_>, seen: &[Range<usize>], sums: &mut Partial<'_>) {
    let d = call.shape.value_dim;
    for i in (0..seen.len()).filter(|&i| !seen[i].is_empty()) {
        for stacked in i * call.group..(i + 1) * call.group {
            if sums.l[stacked] > 0.0 {
                scale_row(&flash.cpu, &mut sums.o[stacked * d..(stacked + 1) * d], 1.0 / sums.l[stacked]);
            }
        }
    }
}
