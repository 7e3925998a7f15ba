//! Attention in parts: keys split and joined again, and paths that share a pass as a token tree.

use anyhow::Result;
use attention::{AttentionSpec, FlashSpec, Part};
use model::{Activations, HeadShape, KvCache, KvShape, SeqId, Step, TokenId};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, StandardNormal};

use super::{at, largest_difference, value};
use crate::worker::{Held, Outcome};

const DIM: usize = 64;
const KEYS: usize = 1000;

fn normal(rng: &mut ChaCha8Rng, rows: usize, cols: usize) -> Activations {
    Activations::from_vec(rows, cols, (0..rows * cols).map(|_| StandardNormal.sample(rng)).collect())
}

/// `partition_difference`: one row over 1000 keys, its keys cut at random places (empty parts included) and joined,
/// against one part over all keys, x = parts; `order_difference`: the same parts joined from the right, and shuffled;
/// `kernel_difference`: the cell's kernel with each `split` against one pass without, x = split.
pub fn split_merge(held: &Held) -> Result<Outcome> {
    let mut rng = ChaCha8Rng::seed_from_u64(held.scenario().seed);
    let (scores, values) = (normal(&mut rng, 1, KEYS), normal(&mut rng, KEYS, DIM));
    let part = |keys: std::ops::Range<usize>| {
        Part::of(&scores.as_slice()[keys.clone()], &values.as_slice()[keys.start * DIM..keys.end * DIM], DIM)
    };
    let whole = part(0..KEYS);
    let difference = |part: &Part| {
        let pairs = part.out.iter().zip(&whole.out).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        largest_difference(pairs.chain([(part.lse, whole.lse)]))
    };
    let mut events = vec![];
    for n_parts in [1, 2, 3, 8, 64] {
        let mut cuts: Vec<usize> = (1..n_parts).map(|_| rng.random_range(0..=KEYS)).collect();
        cuts.extend([0, KEYS, KEYS, KEYS / 2, KEYS / 2]);
        cuts.sort_unstable();
        let mut parts: Vec<Part> = cuts.windows(2).map(|cut| part(cut[0]..cut[1])).collect();
        let empty = Part::empty(DIM);
        let from_left = parts.iter().fold(empty.clone(), |all, part| all.join(part));
        let from_right = parts.iter().rev().fold(empty.clone(), |all, part| part.join(&all));
        let turn = parts.len() / 2;
        parts.rotate_left(turn);
        let turned = parts.iter().fold(empty, |all, part| part.join(&all));
        events.push(value("partition_difference", at(n_parts), difference(&from_left)));
        events.push(value("order_difference", at(n_parts), difference(&from_right).max(difference(&turned))));
    }
    let flash = |split| AttentionSpec::Flash(FlashSpec { split, key_tile: 64, ..FlashSpec::default() });
    let shape = HeadShape::new(4, 2, DIM);
    let (q, k, v) =
        (normal(&mut rng, 1, 4 * DIM), normal(&mut rng, 4 * KEYS, 2 * DIM), normal(&mut rng, 4 * KEYS, 2 * DIM));
    let kv = filled(held, &shape, &k, &v)?;
    let step = Step::extend(SeqId(0), 4 * KEYS - 1, &[TokenId(0)]);
    let run = |split: usize| -> Result<Activations> {
        let mut out = Activations::default();
        flash(split).build(&held.device)?.forward(&step, 0, &shape, &q, &*kv, &mut out);
        Ok(out)
    };
    let unsplit = run(0)?;
    for split in [64, 192, 1024, 2048] {
        events.push(value("kernel_difference", at(split), gap(&run(split)?, &unsplit)));
    }
    Ok(events.into())
}

fn filled(held: &Held, shape: &HeadShape, k: &Activations, v: &Activations) -> Result<Box<dyn KvCache>> {
    filled_room(held, shape, k, v, k.rows())
}

fn gap(a: &Activations, b: &Activations) -> f64 {
    largest_difference(a.as_slice().iter().zip(b.as_slice()).map(|(a, b)| (f64::from(*a), f64::from(*b))))
}

fn chosen(x: &Activations, rows: &[usize]) -> Activations {
    let values = rows.iter().flat_map(|row| x.row(*row).to_vec()).collect();
    Activations::from_vec(rows.len(), x.cols(), values)
}

/// `tree_difference`: a random token tree behind 300 entries in one pass, against one causal pass per node over the path
/// to it, through the cell's attention; x = nodes.
pub fn tree_paths(held: &Held) -> Result<Outcome> {
    const PAST: usize = 300;
    let attention = held.cells[0].spec.attention.build(&held.device)?;
    let shape = HeadShape::new(4, 2, DIM);
    let mut rng = ChaCha8Rng::seed_from_u64(held.scenario().seed);
    let mut events = vec![];
    for nodes in [1, 7, 24, 64] {
        let parents: Vec<Option<usize>> = (0..nodes).map(|row| rng.random_range(0usize..=row).checked_sub(1)).collect();
        let [k, v] = [0; 2].map(|_| normal(&mut rng, PAST + nodes, 2 * DIM));
        let q = normal(&mut rng, nodes, 4 * DIM);
        let step = Step::tree(SeqId(0), PAST, &vec![TokenId(0); nodes], &parents)?;
        let past: Vec<usize> = (0..PAST).collect();
        let mut kv = filled_room(held, &shape, &chosen(&k, &past), &chosen(&v, &past), PAST + nodes)?;
        let of_tree: Vec<usize> = (PAST..PAST + nodes).collect();
        kv.append(0, &step, &chosen(&k, &of_tree), &chosen(&v, &of_tree));
        let (mut together, mut alone) = (Activations::default(), Activations::default());
        attention.forward(&step, 0, &shape, &q, &*kv, &mut together);
        let mut worst = 0.0f64;
        for node in 0..nodes {
            let mut path: Vec<usize> = std::iter::successors(Some(node), |row| parents[*row]).collect();
            path.reverse();
            let entries: Vec<usize> = past.iter().copied().chain(path.iter().map(|row| PAST + row)).collect();
            let kv = filled(held, &shape, &chosen(&k, &entries), &chosen(&v, &entries))?;
            let step = Step::extend(SeqId(0), PAST, &vec![TokenId(0); path.len()]);
            attention.forward(&step, 0, &shape, &chosen(&q, &path), &*kv, &mut alone);
            worst = worst.max(gap(&chosen(&alone, &[path.len() - 1]), &chosen(&together, &[node])));
        }
        events.push(value("tree_difference", at(nodes), worst));
    }
    Ok(events.into())
}

fn filled_room(
    held: &Held,
    shape: &HeadShape,
    k: &Activations,
    v: &Activations,
    room: usize,
) -> Result<Box<dyn KvCache>> {
    let kv_shape = KvShape::new(1, shape.n_key_heads, shape.key_dim);
    let mut kv = held.cells[0].spec.kv.build(kv_shape, room, &held.device)?;
    kv.reserve(SeqId(0), room)?;
    kv.append(0, &Step::extend(SeqId(0), 0, &vec![TokenId(0); k.rows()]), k, v);
    Ok(kv)
}
