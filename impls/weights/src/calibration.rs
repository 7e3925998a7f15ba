//! What a quantizer may know about a layer's inputs, gathered while text runs through the model: H = 2/n · Σ x·xᵀ, the range
//! of every feature, a histogram of |x|, a few of the rows themselves.
//!
//! Precision: products of up to 256 rows are summed in f32 by the GEMM kernel, those sums in f64; an entry is thus
//! within about 1e-6 of √(H_ii·H_jj). Only tiles on or above the diagonal are computed. Cost per row: d² flops
//! (half of the full product) and, per 256 rows, one pass over d²/2 f64.

mod channels;
mod magnitudes;
mod range;
mod sample;

use std::sync::Mutex;

use cpu_kernels::{Cpu, PackedF32};
use model::Activations;

pub use channels::ChannelStats;
pub use magnitudes::Magnitudes;
pub use range::RangeRule;
pub use sample::SampleRows;

/// Rows whose products are summed in f32 before f64 takes over.
const CHUNK_ROWS: usize = 256;
/// Columns of one product.
const PANEL: usize = 512;

/// Running statistics of `[rows, features]` inputs.
#[derive(Debug, Clone)]
pub struct CalibrationStats {
    features: usize,
    n_rows: usize,
    /// Σ x·xᵀ, `[features, features]`; valid where column ≥ row.
    sums: Vec<f64>,
    channels: ChannelStats,
    magnitudes: Magnitudes,
    sample: SampleRows,
}

impl CalibrationStats {
    /// No rows yet.
    pub fn new(features: usize) -> CalibrationStats {
        CalibrationStats {
            features,
            n_rows: 0,
            sums: vec![0.0; features * features],
            channels: ChannelStats::new(features),
            magnitudes: Magnitudes::default(),
            sample: SampleRows::new(features),
        }
    }

    /// As if `n_rows` rows had been seen whose H is `hessian [features, features]`, symmetric. The rows themselves are
    /// unknown: channels, magnitudes and sample are empty.
    ///
    /// # Panics
    /// If `hessian.len() != features²`.
    pub fn from_hessian(features: usize, n_rows: usize, hessian: &[f64]) -> CalibrationStats {
        assert_eq!(hessian.len(), features * features, "a Hessian of {features} features");
        let sums = hessian.iter().map(|h| h * n_rows as f64 / 2.0).collect();
        CalibrationStats { n_rows, sums, ..CalibrationStats::new(features) }
    }

    /// Takes in `x [rows, features]`; whole windows of text at a time are fastest.
    ///
    /// # Panics
    /// If `x` has another number of columns.
    pub fn add(&mut self, cpu: &Cpu, x: &Activations) {
        assert_eq!(x.cols(), self.features, "calibration rows of {} features", self.features);
        for rows in x.as_slice().chunks(CHUNK_ROWS * self.features.max(1)) {
            self.add_chunk(cpu, rows);
        }
        self.channels.add(x.as_slice());
        self.magnitudes.add(x.as_slice());
        self.sample.add(x.as_slice());
        self.n_rows += x.rows();
    }

    /// Takes in everything that `other` has seen.
    ///
    /// # Panics
    /// If the numbers of features differ.
    pub fn merge(&mut self, other: &CalibrationStats) {
        assert_eq!(other.features, self.features, "statistics of {} features", self.features);
        self.sums.iter_mut().zip(&other.sums).for_each(|(sum, more)| *sum += more);
        self.channels.merge(&other.channels);
        self.magnitudes.merge(&other.magnitudes);
        self.sample.merge(&other.sample);
        self.n_rows += other.n_rows;
    }

    /// The statistics of x/scale, feature by feature; `scale [features]`, positive. The histogram of magnitudes is that of
    /// the sampled rows alone, because all features share it.
    ///
    /// # Panics
    /// If the numbers of features differ.
    pub fn scaled(&self, scale: &[f32]) -> CalibrationStats {
        let d = self.features;
        assert_eq!(scale.len(), d, "scales of {d} features");
        let mut sums = self.sums.clone();
        for (row, &s) in sums.chunks_exact_mut(d.max(1)).zip(scale) {
            row.iter_mut().zip(scale).for_each(|(sum, &t)| *sum /= f64::from(s) * f64::from(t));
        }
        let (channels, sample) = (self.channels.scaled(scale), self.sample.scaled(scale));
        let mut magnitudes = Magnitudes::default();
        magnitudes.add(sample.rows());
        CalibrationStats { features: d, n_rows: self.n_rows, sums, channels, magnitudes, sample }
    }

    /// Range and mean magnitude of every feature.
    pub fn channels(&self) -> &ChannelStats {
        &self.channels
    }

    /// Histogram of |x| over all values.
    pub fn magnitudes(&self) -> &Magnitudes {
        &self.magnitudes
    }

    /// A few of the rows, spread evenly over those seen.
    pub fn sample(&self) -> &SampleRows {
        &self.sample
    }

    /// Features of a row.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Rows seen. With fewer rows than features H is singular and damping decides the result.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// H = 2/n · Σ x·xᵀ, `[features, features]`, symmetric; zeros when no row was seen.
    pub fn hessian(&self) -> Vec<f64> {
        let d = self.features;
        let factor = 2.0 / self.n_rows.max(1) as f64;
        let mut h: Vec<f64> = self.sums.iter().map(|sum| sum * factor).collect();
        // tile by tile, because the mirrored reads jump a row each
        const TILE: usize = 64;
        for i0 in (0..d).step_by(TILE) {
            for j0 in (0..=i0).step_by(TILE) {
                for i in i0..(i0 + TILE).min(d) {
                    for j in j0..(j0 + TILE).min(i) {
                        h[i * d + j] = h[j * d + i];
                    }
                }
            }
        }
        h
    }

    /// `rows [≤ CHUNK_ROWS, features]`, flat.
    fn add_chunk(&mut self, cpu: &Cpu, rows: &[f32]) {
        let d = self.features;
        let n = rows.len() / d.max(1);
        let mut transposed = vec![0.0; d * n];
        for (r, row) in rows.chunks(d).enumerate() {
            row.iter().enumerate().for_each(|(j, &x)| transposed[j * n + r] = x);
        }
        let mut product = vec![0.0; d * PANEL.min(d)];
        for j0 in (0..d).step_by(PANEL) {
            let j1 = (j0 + PANEL).min(d);
            let width = j1 - j0;
            let panel = PackedF32::pack(&transposed[j0 * n..j1 * n], width, n);
            let product = &mut product[..j1 * width];
            panel.forward(cpu, &transposed[..j1 * n], j1, product);
            let tiles: Vec<Mutex<&mut [f64]>> = self.sums[..j1 * d].chunks_mut(64 * d).map(Mutex::new).collect();
            cpu.parallel(tiles.len(), &|t| {
                let mut tile = tiles[t].lock().expect("a tile is locked once, by its own task");
                for (sums, more) in tile.chunks_mut(d).zip(product[t * 64 * width..].chunks(width)) {
                    sums[j0..j1].iter_mut().zip(more).for_each(|(sum, &x)| *sum += x as f64);
                }
            });
        }
    }
}
