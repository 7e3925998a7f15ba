//! The FlashAttention-2 order: queries outside, keys inside, one division at the end.
//!
//! 1. A query tile runs over its keys section by section; a section starts from nothing and keeps o un-normalised:
//!    m' = max(m, rowmax S), o ← e^(m−m')·o + e^(S−m')·V, l ← e^(m−m')·l + Σ e^(S−m'). 2. Sections are joined in order.
//! 3. out = o / l, the only division and the only write. Query tiles run in parallel; where there are fewer than
//!    threads (one row over a long past) their sections do, with the same joins, hence the same bits.

use std::ops::Range;

use cpu_kernels::Cpu;
use cpu_kernels::attention::scale_row;
use model::{HeadShape, SeqId, Step, TokenId};

use super::online::{Partial, Work};
use super::tiles::QueryTile;
use super::{Call, Flash, FlashSpec};

/// Sections in flight per thread when sections run in parallel; bounds their partial results.
const WAVE: usize = 8;

pub(super) fn forward(flash: &Flash, call: &Call<'_>) {
    let len = |span: usize| call.kv.len(call.layer, call.step.spans[span].seq);
    let tiles = flash.spec.query_tiles(call.shape, call.step, len);
    let n_sections: usize = tiles.iter().map(|tile| flash.spec.sections(tile.keys.clone()).count()).sum();
    if spreads_sections(flash.cpu.threads(), tiles.len(), n_sections) {
        let jobs: Vec<(usize, Range<usize>)> = tiles
            .iter()
            .enumerate()
            .flat_map(|(i, t)| flash.spec.sections(t.keys.clone()).map(move |s| (i, s)))
            .collect();
        by_sections(flash, call, &tiles, &jobs);
    } else {
        flash.cpu.parallel(tiles.len(), &|i| whole_tile(flash, call, &tiles[i]));
    }
}

fn spreads_sections(threads: usize, n_tiles: usize, n_sections: usize) -> bool {
    n_tiles < threads && n_tiles < n_sections
}

/// Values of all buffers that a pass over one sequence uses at a time.
pub(super) fn scratch_len(spec: &FlashSpec, shape: &HeadShape, threads: usize, rows: usize, keys: usize) -> usize {
    let step = Step::extend(SeqId(0), keys.saturating_sub(rows), &vec![TokenId(0); rows]);
    let tiles = spec.query_tiles(shape, &step, |_| keys);
    let n_sections: usize = tiles.iter().map(|tile| spec.sections(tile.keys.clone()).count()).sum();
    let n = rows.min(spec.tile_rows(shape)) * spec.group(shape);
    let (tile, partial) = (tile_len(spec, shape, n), Partial::len(n, shape.value_dim));
    if spreads_sections(threads, tiles.len(), n_sections) {
        threads.min(n_sections) * tile + (1 + n_sections.min(WAVE * threads)) * partial
    } else {
        threads.min(tiles.len()) * (tile + 2 * partial)
    }
}

/// Packed queries and scores of one tile of `n` stacked rows.
fn tile_len(spec: &FlashSpec, shape: &HeadShape, n: usize) -> usize {
    n * (shape.key_dim + spec.key_tile)
}

/// Stacked rows of `tile`.
fn stacked(call: &Call<'_>, tile: &QueryTile) -> usize {
    tile.rows.len() * call.group
}

fn whole_tile(flash: &Flash, call: &Call<'_>, tile: &QueryTile) {
    let (n, d) = (stacked(call, tile), call.shape.value_dim);
    let mut buffer = flash.work.take(tile_len(&flash.spec, call.shape, n) + 2 * Partial::len(n, d));
    let (tile_buffer, rest) = buffer.split_at_mut(tile_len(&flash.spec, call.shape, n));
    let (total, part) = rest.split_at_mut(Partial::len(n, d));
    let (mut total, mut part) = (Partial::new(total, n), Partial::new(part, n));
    total.clear();
    for keys in flash.spec.sections(tile.keys.clone()) {
        section(flash, call, tile, keys, tile_buffer, &mut part);
        total.join(&flash.cpu, &part, d);
    }
    finish(flash, call, tile, &mut total);
}

/// One query tile over the entries `keys` of one section, from nothing.
fn section(
    flash: &Flash,
    call: &Call<'_>,
    tile: &QueryTile,
    keys: Range<usize>,
    buffer: &mut [f32],
    part: &mut Partial<'_>,
) {
    let (q, scores) = buffer.split_at_mut(stacked(call, tile) * call.shape.key_dim);
    flash.pack_queries(call, tile, q);
    part.clear();
    let mut seen = vec![0..0; tile.rows.len()];
    for keys in flash.spec.key_tiles(keys) {
        let work = Work { q, scores, seen: &mut seen };
        flash.attend(call, tile, keys, work, part, rescale);
    }
}

fn rescale(cpu: &Cpu, o: &mut [f32], f: f32, _l_before: f32) {
    if f != 1.0 {
        scale_row(cpu, o, f);
    }
}

/// Divides by l and writes; a row that saw nothing stays zero.
fn finish(flash: &Flash, call: &Call<'_>, tile: &QueryTile, total: &mut Partial<'_>) {
    for (o, &l) in total.o.chunks_exact_mut(call.shape.value_dim).zip(total.l.iter()) {
        if l > 0.0 {
            scale_row(&flash.cpu, o, 1.0 / l);
        }
    }
    flash.write(call, tile, total.o);
}

/// Sections of all tiles in parallel, a bounded wave at a time; the caller joins them in order.
fn by_sections(flash: &Flash, call: &Call<'_>, tiles: &[QueryTile], jobs: &[(usize, Range<usize>)]) {
    let d = call.shape.value_dim;
    let n_most = tiles.iter().map(|tile| stacked(call, tile)).max().unwrap_or(0);
    let (slot, wave) = (Partial::len(n_most, d), jobs.len().min(WAVE * flash.cpu.threads()));
    let mut buffer = flash.partials.take((wave + 1) * slot);
    let (total, slots) = buffer.split_at_mut(slot);
    let mut previous = None;
    for jobs in jobs.chunks(wave) {
        flash.cpu.parallel_chunks_mut(&mut slots[..jobs.len() * slot], slot, &|i, slot| {
            let (tile, keys) = (&tiles[jobs[i].0], jobs[i].1.clone());
            let n = stacked(call, tile);
            let mut work = flash.work.take(tile_len(&flash.spec, call.shape, n));
            section(flash, call, tile, keys, &mut work, &mut Partial::new(&mut slot[..Partial::len(n, d)], n));
        });
        for ((tile, _), slot) in jobs.iter().zip(slots.chunks_exact_mut(slot)) {
            if previous != Some(*tile) {
                previous.into_iter().for_each(|done: usize| end(flash, call, &tiles[done], total));
                begin(call, &tiles[*tile], total);
                previous = Some(*tile);
            }
            let n = stacked(call, &tiles[*tile]);
            let mut sum = Partial::new(&mut total[..Partial::len(n, d)], n);
            sum.join(&flash.cpu, &Partial::new(&mut slot[..Partial::len(n, d)], n), d);
        }
    }
    previous.into_iter().for_each(|done| end(flash, call, &tiles[done], total));
}

fn begin(call: &Call<'_>, tile: &QueryTile, total: &mut [f32]) {
    let n = stacked(call, tile);
    Partial::new(&mut total[..Partial::len(n, call.shape.value_dim)], n).clear();
}

fn end(flash: &Flash, call: &Call<'_>, tile: &QueryTile, total: &mut [f32]) {
    let n = stacked(call, tile);
    finish(flash, call, tile, &mut Partial::new(&mut total[..Partial::len(n, call.shape.value_dim)], n));
}
