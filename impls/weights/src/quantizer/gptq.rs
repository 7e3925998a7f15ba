//! What: GPTQ, codes chosen column by column, each error spread over the columns that are still free.
//! Source: arXiv 2210.17323, Algorithm 1 (lazy batches §3.3 step 2, Cholesky step 3); act-order, static groups and the
//!   treatment of dead columns from the authors' code.
//! Shapes: weight `[n, k]`, H `[k, k]` → codes `[n, k]`, scales and zeros `[n, ⌈k/group⌉]`, order `[k]` with act-order.
//! Method: 1. a dead column (H_jj = 0) gets weight 0. 2. act-order: columns by H_jj descending. 3. λ = damping · mean H_jj
//!   over live columns is added to the diagonal; R = upper Cholesky factor of H⁻¹, damping ×10 up to 3 times if that fails.
//!   4. per column j: at a group's start fit the grid to the weights as they are now; q = quant(w_j), e = (w_j − q)/R_jj,
//!   w_{j+1…} −= e·R_{j,j+1…}, inside a block at once, behind it one product per block.
//! Exactness: f64 throughout; codes do not depend on `block` (a group that would cross a block's end starts a new one).
//!   H = I gives RTN's codes. Static groups and whole-row grids are stored in input order, so act-order costs nothing there.
//! Cost: n·k² multiply-adds for the updates, k³/3 for R; 8·k² bytes three times over while R is made.
//! Not handled: quantising layers in sequence on quantised inputs (the caller's order decides that), clipping search.

use std::ops::Range;
use std::sync::OnceLock;

use cpu_kernels::{Cpu, GroupCodes, subtract_combination};
use model::Device;
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

use super::inverse_factor::{BadPivot, upper_factor_of_inverse};
use super::round_to_nearest::{GroupSpec, default_group};
use super::{Grid, QuantizeError, Quantized, Quantizer, require_finite};
use crate::row_update::COLUMN_CHUNK;
use crate::{CalibrationStats, SpecError};

/// Rows that advance together: enough to hide the latency of the column recurrence, few enough for the cache.
const TILE_ROWS: usize = 16;

/// GPTQ's knobs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GptqSpec {
    /// Bits per code: 2, 3, 4 or 8.
    pub bits: u8,
    /// Columns per grid; the last group of a row may be shorter. `None`: one grid per row.
    #[serde(with = "crate::spec::group_length", default = "default_group")]
    pub group: Option<usize>,
    /// Whether 0 is the middle code of every grid.
    #[serde(default)]
    pub symmetric: bool,
    /// Whether columns are visited by the diagonal of H, largest first.
    #[serde(default)]
    pub act_order: bool,
    /// Whether group grids are fitted before the first column, to the original weights.
    #[serde(default)]
    pub static_groups: bool,
    /// λ as a fraction of the mean diagonal of H.
    #[serde(default = "paper_damping")]
    pub damping: f64,
    /// Columns between two lazy updates; changes speed, not codes.
    #[serde(default = "paper_block")]
    pub block: usize,
    /// Bits that activations are rounded to before the product; `None`: f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_bits: Option<u8>,
}

fn paper_damping() -> f64 {
    0.01
}

fn paper_block() -> usize {
    128
}

impl GptqSpec {
    /// The paper's settings at `bits` and `group`.
    pub fn new(bits: u8, group: Option<usize>) -> GptqSpec {
        let (damping, block) = (paper_damping(), paper_block());
        GptqSpec {
            bits,
            group,
            symmetric: false,
            act_order: false,
            static_groups: false,
            damping,
            block,
            activation_bits: None,
        }
    }

    /// The grids, which are RTN's.
    pub fn grid(&self) -> GroupSpec {
        let (symmetric, activation_bits) = (self.symmetric, self.activation_bits);
        GroupSpec { symmetric, activation_bits, ..GroupSpec::new(self.bits, self.group) }
    }

    pub(crate) fn tag(&self) -> String {
        let mut tag = self.grid().tag();
        let base = GptqSpec::new(self.bits, self.group);
        for (differs, part) in [
            (self.act_order, "-actorder".to_string()),
            (self.static_groups, "-static".to_string()),
            (self.damping != base.damping, format!("-damping{}", self.damping)),
            (self.block != base.block, format!("-block{}", self.block)),
        ] {
            if differs {
                tag.push_str(&part);
            }
        }
        tag
    }

    pub(crate) fn validate(&self) -> Result<(), SpecError> {
        self.grid().validate()?;
        if !(self.damping > 0.0 && self.damping <= 1.0) {
            return Err(SpecError {
                field: "damping",
                found: self.damping.to_string(),
                expected: "more than 0, at most 1 (a fraction of H's mean diagonal)",
                advice: "the paper uses 0.01",
            });
        }
        if self.block == 0 || self.block > 1 << 16 {
            return Err(SpecError {
                field: "block",
                found: self.block.to_string(),
                expected: "1 to 65536 columns",
                advice: "the paper uses 128",
            });
        }
        Ok(())
    }
}

/// The quantizer.
pub struct Gptq {
    spec: GptqSpec,
    device: Device,
}

/// Codes, and what it took to find them.
#[derive(Debug, Clone)]
pub struct GptqOutcome {
    /// The codes.
    pub codes: GroupCodes,
    /// Damping that factored H: the spec's, or ten times it, up to three times over.
    pub damping: f64,
    /// Columns whose inputs were zero throughout calibration.
    pub n_dead: usize,
}

impl Quantizer for Gptq {
    fn quantize(&self, weight: ArrayView2<f32>, stats: Option<&CalibrationStats>) -> Result<Quantized, QuantizeError> {
        let stats = stats.ok_or(QuantizeError::MissingStats { quantizer: "gptq" })?;
        Ok(Quantized::Group(self.solve(weight, stats)?.codes))
    }
}

impl Gptq {
    /// GPTQ with `spec` on the threads of `device`.
    pub fn new(spec: GptqSpec, device: &Device) -> Gptq {
        Gptq { spec, device: device.clone() }
    }

    /// [`Quantizer::quantize`] with its circumstances.
    pub fn solve(&self, weight: ArrayView2<f32>, stats: &CalibrationStats) -> Result<GptqOutcome, QuantizeError> {
        let (n, k) = weight.dim();
        require_finite(weight)?;
        if stats.features() != k || stats.n_rows() == 0 {
            return Err(QuantizeError::StatsMismatch { expected: k, found: stats.features(), rows: stats.n_rows() });
        }
        let h = stats.hessian();
        if let Some(at) = crate::source::first_bad(&h, |x: f64| !x.is_finite()) {
            return Err(QuantizeError::NonFiniteStats { feature: at / k });
        }
        let diagonal: Vec<f64> = (0..k).map(|j| h[j * k + j]).collect();
        // 2. the sort is stable: equal columns keep their order, and H = I keeps them all
        let mut visit: Vec<usize> = (0..k).collect();
        if self.spec.act_order {
            visit.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
        }
        let cpu = self.device.cpu();
        let (r, damping) = self.factor(cpu, &h, &diagonal, &visit)?;
        drop(h);
        let plan = Plan { spec: self.spec, k, group: self.spec.grid().group_in(k), visit, diagonal, r };
        let tiles: Vec<OnceLock<Tile>> = (0..n.div_ceil(TILE_ROWS)).map(|_| OnceLock::new()).collect();
        cpu.parallel(tiles.len(), &|i| {
            let rows = i * TILE_ROWS..((i + 1) * TILE_ROWS).min(n);
            tiles[i].get_or_init(|| plan.quantise_rows(cpu, weight, rows));
        });
        let n_dead = plan.diagonal.iter().filter(|&&d| d == 0.0).count();
        let tiles = tiles.into_iter().filter_map(OnceLock::into_inner);
        Ok(GptqOutcome { codes: plan.assemble(n, tiles), damping, n_dead })
    }

    /// 3. R of the damped, reordered H, with the damping that worked.
    fn factor(
        &self,
        cpu: &Cpu,
        h: &[f64],
        diagonal: &[f64],
        visit: &[usize],
    ) -> Result<(Vec<f64>, f64), QuantizeError> {
        let k = visit.len();
        let n_live = diagonal.iter().filter(|&&d| d != 0.0).count();
        // with no live column every weight is free to be anything; H = 1 lets the rest of the method run
        let mean = if n_live == 0 { 1.0 } else { diagonal.iter().sum::<f64>() / n_live as f64 };
        let mut damping = self.spec.damping;
        let mut pivot = 0;
        for _ in 0..4 {
            let mut damped = Vec::with_capacity(k * k);
            for &i in visit {
                let row = &h[i * k..][..k];
                damped.extend(visit.iter().map(|&j| row[j]));
            }
            for (at, &j) in visit.iter().enumerate() {
                // a dead column couples with nothing: any positive pivot serves
                damped[at * k + at] = if diagonal[j] == 0.0 { mean } else { diagonal[j] } + damping * mean;
            }
            match upper_factor_of_inverse(cpu, damped, k) {
                Ok(r) => return Ok((r, damping)),
                Err(BadPivot(bad)) => (pivot, damping) = (bad, damping * 10.0),
            }
        }
        Err(QuantizeError::NotPositiveDefinite { damping: damping / 10.0, pivot: visit[pivot], features: k })
    }
}

/// Everything that the rows share.
struct Plan {
    spec: GptqSpec,
    k: usize,
    group: usize,
    /// `visit[j]`: input column that is j-th in turn.
    visit: Vec<usize>,
    diagonal: Vec<f64>,
    r: Vec<f64>,
}

/// Results of a few rows, laid out as they are stored.
struct Tile {
    codes: Vec<u8>,
    grids: Vec<Grid>,
}

impl Plan {
    fn n_groups(&self) -> usize {
        self.k.div_ceil(self.group)
    }

    /// Whether grids are known before the first column and belong to groups in input order.
    fn grids_are_fixed(&self) -> bool {
        self.spec.static_groups || self.group >= self.k
    }

    fn fit(&self, values: &[f64]) -> Grid {
        Grid::fit(values.iter().copied(), self.spec.bits, self.spec.symmetric)
    }

    /// Steps 1, 2 and 4 for some rows of the matrix.
    fn quantise_rows(&self, cpu: &Cpu, weight: ArrayView2<f32>, rows: Range<usize>) -> Tile {
        let (k, n_groups, n_rows) = (self.k, self.n_groups(), rows.len());
        let mut w = Vec::with_capacity(n_rows * k);
        let mut grids = Vec::with_capacity(n_rows * n_groups);
        for row in rows {
            let live = |j: usize| if self.diagonal[j] == 0.0 { 0.0 } else { weight[[row, j]] as f64 };
            let original: Vec<f64> = (0..k).map(live).collect();
            grids.extend(original.chunks(self.group).map(|values| self.fit(values)));
            w.extend(self.visit.iter().map(|&j| original[j]));
        }
        let mut tile = Tile { codes: vec![0; n_rows * k], grids };
        let mut errors = vec![0.0; n_rows * self.spec.block.min(k)];
        let mut start = 0;
        while start < k {
            let block = start..self.block_end(start);
            for j in block.clone() {
                self.quantise_column(cpu, (j, &block), &mut w, &mut tile, &mut errors);
            }
            for c0 in (block.end..k).step_by(COLUMN_CHUNK) {
                let c1 = (c0 + COLUMN_CHUNK).min(k);
                for (w_row, errors) in w.chunks_mut(k).zip(errors.chunks(self.spec.block.min(k))) {
                    let r = &self.r[block.start * k + c0..];
                    subtract_combination(cpu, &mut w_row[c0..c1], &errors[..block.len()], r, k);
                }
            }
            start = block.end;
        }
        tile
    }

    /// End of the lazy block at `start`: `block` columns on, or earlier where a group begins that reaches further,
    /// since its grid must see every update.
    fn block_end(&self, start: usize) -> usize {
        let end = (start + self.spec.block).min(self.k);
        if self.grids_are_fixed() {
            return end;
        }
        let last_group = (end - 1) / self.group * self.group;
        let crosses = (last_group + self.group).min(self.k) > end;
        if crosses && last_group > start { last_group } else { end }
    }

    /// Step 4 for column `j` of all rows; errors go to `errors [rows, block]`.
    fn quantise_column(
        &self,
        cpu: &Cpu,
        (j, block): (usize, &Range<usize>),
        w: &mut [f64],
        tile: &mut Tile,
        errors: &mut [f64],
    ) {
        let (k, n_groups) = (self.k, self.n_groups());
        let fixed = self.grids_are_fixed();
        // fixed grids and their codes lie in input order, fitted ones in the order of the visit
        let place = if fixed { self.visit[j] } else { j };
        let r = &self.r[j * k..][..k];
        let width = self.spec.block.min(k);
        for (i, w_row) in w.chunks_mut(k).enumerate() {
            let grid = &mut tile.grids[i * n_groups + place / self.group];
            if !fixed && j.is_multiple_of(self.group) {
                *grid = self.fit(&w_row[j..(j + self.group).min(k)]);
            }
            let code = grid.code(w_row[j]);
            let error = (w_row[j] - grid.value(code)) / r[j];
            tile.codes[i * k + place] = code;
            errors[i * width + j - block.start] = error;
            let later = j + 1..block.end;
            subtract_combination(cpu, &mut w_row[later.clone()], &[error], &r[later], 0);
        }
    }

    fn assemble(&self, n: usize, tiles: impl Iterator<Item = Tile>) -> GroupCodes {
        let mut codes = Vec::with_capacity(n * self.k);
        let n_grids = n * self.n_groups();
        let (mut scales, mut zeros) = (Vec::with_capacity(n_grids), Vec::with_capacity(n_grids));
        for tile in tiles {
            codes.extend(tile.codes);
            scales.extend(tile.grids.iter().map(Grid::scale));
            zeros.extend(tile.grids.iter().map(Grid::zero));
        }
        if !self.spec.act_order || self.grids_are_fixed() {
            return GroupCodes {
                n,
                k: self.k,
                bits: self.spec.bits,
                group: self.group,
                codes,
                scales,
                zeros,
                order: None,
            };
        }
        // inside a group columns lie in input order, which is how checkpoints that store groups alone read back
        let mut place: Vec<usize> = (0..self.k).collect();
        place.chunks_mut(self.group).for_each(|group| group.sort_by_key(|&at| self.visit[at]));
        let codes = codes.chunks(self.k).flat_map(|row| place.iter().map(|&at| row[at])).collect();
        let order = Some(place.iter().map(|&at| self.visit[at] as u32).collect());
        GroupCodes { n, k: self.k, bits: self.spec.bits, group: self.group, codes, scales, zeros, order }
    }
}
