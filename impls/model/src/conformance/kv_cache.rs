//! What every KV cache that keeps all entries must satisfy. Caches that evict have other promises.

use std::ops::Range;

use super::value;
use crate::{Activations, KvCache, KvShape, KvTile, SeqId, Span, Step, TokenId, Visibility};

/// Makes an empty cache of a shape with room for so many tokens per sequence.
pub type Make<'a> = &'a dyn Fn(KvShape, usize) -> Box<dyn KvCache>;

/// Shapes tried: odd head sizes and a layer of one head included.
pub const SHAPES: [KvShape; 5] = [
    KvShape::new(1, 1, 16),
    KvShape::new(2, 3, 20),
    KvShape::new(3, 2, 64),
    KvShape { n_key_heads: 1, key_dim: 40, ..KvShape::new(2, 3, 20) },
    KvShape::latent(2, 36, 24),
];

/// Below this an encoding may err as much as at it: half precision is subnormal there.
const SMALLEST_NORMAL: f32 = 1.0 / 16384.0;

/// Runs every check; `relative_error` is what the encoding may change of a value, relative to the largest
/// of its row (one entry of one head), 0 for f32.
pub fn check(make: Make<'_>, relative_error: f32) -> Result<(), String> {
    for shape in SHAPES {
        keeps_interleaved_sequences(make, shape, relative_error)?;
        truncates_and_appends_again(make, shape, relative_error)?;
        refuses_beyond_capacity(make, shape)?;
        frees_a_truncated_sequence(make, shape)?;
        shows_one_head(make, shape)?;
        forks_or_says_so(make, shape, relative_error)?;
    }
    Ok(())
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// Element of K (`kind` 0) or V (1) that version `version` of a sequence has at a place.
fn element(kind: u64, version: u64, layer: usize, seq: SeqId, position: usize, col: usize) -> f32 {
    value(
        kind << 60
            | version << 52
            | (layer as u64) << 44
            | u64::from(seq.0) << 36
            | (position as u64) << 12
            | col as u64,
    )
}

/// Rows of `seq` at `positions` as one Step.
fn step_of(seq: SeqId, positions: Range<usize>) -> Step {
    let rows = positions.len();
    Step {
        tokens: vec![TokenId(0); rows],
        positions: positions.clone().map(|p| p as u32).collect(),
        spans: vec![Span { seq, rows: 0..rows, kv_len: positions.end }],
        logit_rows: vec![],
        visibility: Visibility::Causal,
    }
}

/// Reserves and appends `parts` (sequence, positions) as one Step, in every layer.
fn extend(kv: &mut dyn KvCache, shape: KvShape, version: u64, parts: &[(SeqId, Range<usize>)]) -> Result<(), String> {
    let step = Step::batch(&parts.iter().map(|(seq, positions)| step_of(*seq, positions.clone())).collect::<Vec<_>>());
    for span in &step.spans {
        kv.reserve(span.seq, span.kv_len).map_err(|e| e.to_string())?;
    }
    for layer in 0..shape.n_layers {
        let rows = |kind: u64, cols: usize| {
            let places = parts.iter().flat_map(|(seq, positions)| positions.clone().map(move |p| (*seq, p)));
            let values = places.flat_map(|(seq, p)| (0..cols).map(move |c| element(kind, version, layer, seq, p, c)));
            Activations::from_vec(step.rows(), cols, values.collect())
        };
        kv.append(layer, &step, &rows(0, shape.key_width()), &rows(1, shape.value_width()));
    }
    Ok(())
}

/// (kind, head, feature, value) of entry `t` of a tile: keys 0, values 1.
fn values(tile: &KvTile<'_>, shape: &KvShape, t: usize) -> Vec<(u64, usize, usize, f32)> {
    let sides = [(0, tile.k, shape.n_key_heads, shape.key_dim), (1, tile.v, shape.n_value_heads, shape.value_dim)];
    let mut all = vec![];
    for (kind, entries, n_heads, dim) in sides {
        for head in 0..n_heads {
            all.extend((0..dim).map(|d| (kind, head, d, entries.head(head).get(t, d))));
        }
    }
    all
}

/// What was stored there, and the largest magnitude of its row: what an encoding with one scale per row errs by.
fn expected(
    shape: &KvShape,
    version: u64,
    layer: usize,
    seq: SeqId,
    position: usize,
    (kind, head, d): (u64, usize, usize),
) -> (f32, f32) {
    let (kind, dim) = if kind == 0 || shape.value_prefix { (0, shape.key_dim) } else { (1, shape.value_dim) };
    let at = |d: usize| element(kind, version, layer, seq, position, head * dim + d);
    (at(d), (0..dim).map(|d| at(d).abs()).fold(0.0, f32::max))
}

/// Entry t of `seq` must be position t with the values of `version(t)`, for several tile lengths and ranges.
fn holds(
    kv: &dyn KvCache,
    shape: KvShape,
    seq: SeqId,
    len: usize,
    version: &dyn Fn(usize) -> u64,
    relative_error: f32,
) -> Result<(), String> {
    for layer in 0..shape.n_layers {
        ensure(kv.len(layer, seq) == len, || {
            format!("layer {layer}, {seq:?}: {} entries instead of {len}", kv.len(layer, seq))
        })?;
        for tile_len in [1, 5, 16, 64, usize::MAX / 2] {
            for entries in [0..len, len / 3..len, 1.min(len)..len / 2 + 1.min(len)] {
                let mut next = entries.start;
                let mut wrong = None;
                kv.tiles(layer, seq, entries.clone(), tile_len, &mut |tile| {
                    let n = tile.positions.len();
                    if n == 0 || n > tile_len {
                        wrong.get_or_insert(format!("a tile of {n} entries where at most {tile_len} were asked"));
                    }
                    for (t, &position) in tile.positions.iter().enumerate() {
                        let p = next + t;
                        if position as usize != p {
                            wrong.get_or_insert(format!("entry {p} has position {position}"));
                        }
                        for (kind, head, d, found) in values(&tile, &shape, t) {
                            let expected = expected(&shape, version(p), layer, seq, p, (kind, head, d));
                            let error = (found - expected.0).abs();
                            if error.is_nan() || error > relative_error * expected.1.max(SMALLEST_NORMAL) {
                                wrong.get_or_insert(format!(
                                    "entry {p}, head {head}, feature {d}, kind {kind}: {found} instead of {}",
                                    expected.0
                                ));
                            }
                        }
                    }
                    if tile.first != next {
                        wrong.get_or_insert(format!("a tile says it starts at entry {}, not {next}", tile.first));
                    }
                    next += n;
                });
                if wrong.is_none() && next != entries.end.max(entries.start) {
                    wrong = Some(format!("tiles of {entries:?} end at {next}"));
                }
                if let Some(wrong) = wrong {
                    return Err(format!("layer {layer}, {seq:?}, {len} entries, tiles of {tile_len}: {wrong}"));
                }
            }
        }
    }
    Ok(())
}

/// Two sequences that grow in turns and together keep their own entries.
pub fn keeps_interleaved_sequences(make: Make<'_>, shape: KvShape, relative_error: f32) -> Result<(), String> {
    let mut kv = make(shape, 200);
    let (a, b) = (SeqId(0), SeqId(7));
    extend(&mut *kv, shape, 0, &[(a, 0..3)])?;
    extend(&mut *kv, shape, 0, &[(b, 0..70)])?;
    extend(&mut *kv, shape, 0, &[(a, 3..4), (b, 70..71)])?;
    extend(&mut *kv, shape, 0, &[(b, 71..72), (a, 4..130)])?;
    holds(&*kv, shape, a, 130, &|_| 0, relative_error)?;
    holds(&*kv, shape, b, 72, &|_| 0, relative_error)?;
    let bytes = kv.bytes();
    let logical = (130 + 72) * shape.n_layers * kv.entry_bytes();
    ensure(bytes.logical == logical, || format!("{} logical bytes, {logical} expected", bytes.logical))?;
    ensure(bytes.resident >= logical, || format!("{} resident bytes hold {logical}", bytes.resident))
}

/// A rejected suffix leaves no trace once other rows took its place.
pub fn truncates_and_appends_again(make: Make<'_>, shape: KvShape, relative_error: f32) -> Result<(), String> {
    let mut kv = make(shape, 100);
    let seq = SeqId(2);
    extend(&mut *kv, shape, 0, &[(seq, 0..40)])?;
    kv.truncate(seq, 33);
    holds(&*kv, shape, seq, 33, &|_| 0, relative_error)?;
    extend(&mut *kv, shape, 1, &[(seq, 33..36)])?;
    kv.truncate(seq, 90);
    holds(&*kv, shape, seq, 36, &|p| u64::from(p >= 33), relative_error)
}

/// A sequence may fill its room, not more.
pub fn refuses_beyond_capacity(make: Make<'_>, shape: KvShape) -> Result<(), String> {
    let mut kv = make(shape, 21);
    let seq = SeqId(1);
    extend(&mut *kv, shape, 0, &[(seq, 0..21)])?;
    match kv.reserve(seq, 22) {
        Ok(()) => return Err("22 tokens were reserved where 21 fit".into()),
        Err(full) => ensure((full.seq, full.needed) == (seq, 22), || format!("misleading refusal: {full}"))?,
    }
    ensure(kv.len(0, seq) == 21, || "a refused reservation changed the sequence".into())
}

/// Length 0 gives the room back and a sequence never seen has no entries.
pub fn frees_a_truncated_sequence(make: Make<'_>, shape: KvShape) -> Result<(), String> {
    let mut kv = make(shape, 64);
    let empty = kv.bytes();
    extend(&mut *kv, shape, 0, &[(SeqId(3), 0..50), (SeqId(4), 0..2)])?;
    kv.truncate(SeqId(3), 0);
    ensure(kv.len(0, SeqId(3)) == 0, || "a freed sequence has entries".into())?;
    ensure(kv.len(0, SeqId(9)) == 0, || "an unknown sequence has entries".into())?;
    ensure(kv.bytes().logical == 2 * shape.n_layers * kv.entry_bytes(), || "freed entries still count".into())?;
    kv.truncate(SeqId(4), 0);
    kv.truncate(SeqId(9), 0);
    ensure(kv.bytes().logical == 0, || "an empty cache holds entries".into())?;
    ensure(kv.bytes().resident <= empty.resident.max(1), || {
        format!("{} bytes stay resident after freeing all", kv.bytes().resident)
    })?;
    extend(&mut *kv, shape, 5, &[(SeqId(3), 0..9)])?;
    ensure(kv.len(shape.n_layers - 1, SeqId(3)) == 9, || "a freed sequence cannot be used again".into())
}

/// `head_tiles` shows the heads of a group as `tiles` shows them.
pub fn shows_one_head(make: Make<'_>, shape: KvShape) -> Result<(), String> {
    let mut kv = make(shape, 64);
    let seq = SeqId(0);
    extend(&mut *kv, shape, 0, &[(seq, 0..50)])?;
    let layer = shape.n_layers - 1;
    for group in 0..shape.groups() {
        let (mut all, mut one) = (vec![], vec![]);
        let heads = (group * shape.n_key_heads / shape.groups(), group * shape.n_value_heads / shape.groups());
        let gather = |into: &mut Vec<f32>, tile: KvTile<'_>| {
            for t in 0..tile.positions.len() {
                into.extend((0..shape.key_dim).map(|d| tile.k.head(heads.0).get(t, d)));
                into.extend((0..shape.value_dim).map(|d| tile.v.head(heads.1).get(t, d)));
            }
        };
        kv.tiles(layer, seq, 3..50, 16, &mut |tile| gather(&mut all, tile));
        kv.head_tiles(layer, seq, group, 3..50, 16, &mut |tile| gather(&mut one, tile));
        ensure(all == one, || format!("head_tiles of group {group} differs from tiles"))?;
    }
    Ok(())
}

/// A forked sequence has the entries of the other; afterwards they grow apart. A cache that cannot says so and has none.
pub fn forks_or_says_so(make: Make<'_>, shape: KvShape, relative_error: f32) -> Result<(), String> {
    let mut kv = make(shape, 64);
    let (from, to) = (SeqId(1), SeqId(2));
    extend(&mut *kv, shape, 0, &[(from, 0..20), (to, 0..30)])?;
    if !kv.fork(from, to) {
        return ensure(kv.len(0, to) == 0, || "a cache that cannot fork left entries".into());
    }
    let rows = |kv: &dyn KvCache, seq: SeqId| {
        let mut rows = vec![];
        for layer in 0..shape.n_layers {
            ensure(kv.len(layer, seq) >= 20, || format!("layer {layer}, {seq:?}: {} entries", kv.len(layer, seq)))?;
            kv.tiles(layer, seq, 0..20, 1, &mut |tile| {
                rows.extend(values(&tile, &shape, 0).into_iter().map(|(.., value)| value));
            });
        }
        Ok::<_, String>(rows)
    };
    ensure(kv.len(0, to) == 20, || format!("a fork of 20 entries has {}", kv.len(0, to)))?;
    ensure(rows(&*kv, from)? == rows(&*kv, to)?, || "a fork has other entries".into())?;
    extend(&mut *kv, shape, 1, &[(to, 20..40)])?;
    extend(&mut *kv, shape, 0, &[(from, 20..23)])?;
    holds(&*kv, shape, from, 23, &|_| 0, relative_error)?;
    ensure(rows(&*kv, from)? == rows(&*kv, to)?, || "growing changed what was forked".into())?;
    ensure(kv.fork(SeqId(9), to) && kv.len(0, to) == 0, || "a fork of an unknown sequence has entries".into())
}
