//! Launchers of the kernels that work on packed tiles: which one, by the number of rows, and with which constants.

use super::DeviceLinear;
use super::pack::UNIT;
use super::workspace::{Needs, Workspace};
use crate::{Arg, Buffer, Gpu, GpuError, KernelSpec, LaunchShape, Source};

static PACK_INPUTS: Source = Source { name: "linear/pack_inputs.cu", text: include_str!("pack_inputs.cu") };
static QUANTISE_ROWS: Source = Source { name: "linear/quantise_rows.cu", text: include_str!("quantise_rows.cu") };
static ADD_SLICES: Source = Source { name: "linear/add_slices.cu", text: include_str!("add_slices.cu") };
static GEMV: Source = Source { name: "linear/tile_gemv.cu", text: include_str!("tile_gemv.cu") };
static GEMM: Source = Source { name: "linear/tile_gemm.cu", text: include_str!("tile_gemm.cu") };

/// Parts into which k is summed, whatever the number of rows.
pub(crate) const SLICES: usize = 8;
/// Rows up to which weights stream past the inputs; beyond, both go through shared memory.
pub(crate) const STREAMED_ROWS: usize = 16;

/// Rows up to which each block rounds the inputs for itself.
pub(crate) const DIRECT_ROWS: usize = 4;

/// What the weights are, and so which kernel reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    F16,
    Bf16,
    Int8,
    /// 4 bits, a scale per `group` (32, 64 or 128) columns, zeros unless all are 8.
    Int4 {
        group: usize,
        zeros: bool,
    },
}

/// How the work is laid out; every choice gives the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// One block of warps per 16 `output_blocks` outputs and 8 `row_blocks` rows, which it rounds itself where `direct`.
    Gemv { row_blocks: usize, output_blocks: usize, direct: bool },
    /// Tiles of 128 outputs and 8 `row_blocks` rows; each slice of k on its own block where `split`.
    Gemm { row_blocks: usize, split: bool },
}

impl Format {
    /// Every format that is launched.
    pub(crate) fn all() -> Vec<Format> {
        let int4 = [32, 64, 128].into_iter().flat_map(|group| [false, true].map(|zeros| Format::Int4 { group, zeros }));
        [Format::F16, Format::Bf16, Format::Int8].into_iter().chain(int4).collect()
    }

    fn specialise(self, kernel: KernelSpec) -> KernelSpec {
        match self {
            Format::F16 => kernel.define("WEIGHTS", "HalfTiles"),
            Format::Bf16 => kernel.define("WEIGHTS", "Bf16Tiles"),
            Format::Int8 => kernel.define("WEIGHTS", "Int8"),
            Format::Int4 { group, .. } => kernel.define("WEIGHTS", "Int4").define("GROUP", group),
        }
    }

    /// Units of weights on their way per warp of the streaming kernel: about 128 bytes a lane.
    fn ahead(self, output_blocks: usize) -> usize {
        match self {
            Format::F16 | Format::Bf16 => 2 / output_blocks,
            Format::Int8 => 4 / output_blocks,
            // whole groups, and registers enough for more
            Format::Int4 { .. } => 4,
        }
    }

    fn stages(self) -> usize {
        match self {
            Format::F16 | Format::Bf16 => 3,
            Format::Int8 | Format::Int4 { .. } => 4,
        }
    }

    /// Shared memory of a stage: 8 blocks of weights and those of inputs, 512 bytes a load.
    fn stage_bytes(self, row_blocks: usize) -> usize {
        let (tiles, loads) = match self {
            Format::F16 | Format::Bf16 => (4, 2),
            Format::Int8 => (2, 1),
            Format::Int4 { .. } => (1, 2),
        };
        (8 * tiles + row_blocks * loads) * 512
    }

    pub(crate) fn gemv(self, row_blocks: usize, output_blocks: usize, direct: bool) -> KernelSpec {
        let kernel = KernelSpec::new(&GEMV, "tile_gemv").define("ROW_BLOCKS", row_blocks);
        let kernel = kernel.define("OUTPUT_BLOCKS", output_blocks).define("DIRECT", u32::from(direct));
        self.specialise(kernel.define("AHEAD", self.ahead(output_blocks)))
    }

    pub(crate) fn gemm(self, row_blocks: usize, split: bool) -> KernelSpec {
        let kernel = KernelSpec::new(&GEMM, "tile_gemm").define("ROW_BLOCKS", row_blocks);
        let kernel = kernel.define("SPLIT", u32::from(split));
        self.specialise(kernel.define("STAGES", self.stages()))
    }

    fn pack_inputs(self) -> KernelSpec {
        match self {
            Format::Bf16 => KernelSpec::new(&PACK_INPUTS, "pack_inputs").define("NUMBER", "Bf16"),
            Format::Int8 => quantise_rows(false),
            Format::F16 | Format::Int4 { .. } => KernelSpec::new(&PACK_INPUTS, "pack_inputs").define("NUMBER", "Half"),
        }
    }

    /// The layout that streams weights past up to [`STREAMED_ROWS`] rows.
    fn streamed(self, gpu: &Gpu, rows: usize, n: usize, direct: bool) -> Route {
        // inputs weigh as much as weights of 16 outputs, of 4 bits from 4 rows on and of others from 16: then two blocks of outputs share
        // them, if that leaves no multiprocessor idle
        let heavy = rows > 8 || matches!(self, Format::Int4 { .. });
        let shares = heavy && 10 * n.div_ceil(32) >= 9 * gpu.multiprocessors();
        let (row_blocks, output_blocks) = (if rows <= 8 { 1 } else { 2 }, if shares { 2 } else { 1 });
        Route::Gemv { row_blocks, output_blocks, direct: direct && rows <= DIRECT_ROWS }
    }

    /// The layout for `rows` rows of weights `[n, _]` on `gpu`; `direct`: whether the inputs can be taken as they are.
    pub(crate) fn route(self, gpu: &Gpu, rows: usize, n: usize, direct: bool) -> Route {
        if rows <= STREAMED_ROWS {
            return self.streamed(gpu, rows, n, direct);
        }
        let whole = self.tiled(gpu, rows, n);
        // sums of int8 slices would be another type
        let splits = self != Format::Int8 && 2 * n.div_ceil(128) * rows.div_ceil(64) <= gpu.multiprocessors();
        if splits { Route::Gemm { row_blocks: 8, split: true } } else { whole }
    }

    /// The layout of whole sums in tiles.
    fn tiled(self, gpu: &Gpu, rows: usize, n: usize) -> Route {
        // a second set of sums leaves no registers for twice the rows
        let room = !matches!(self, Format::Int4 { .. });
        let wide = room && 10 * n.div_ceil(128) * rows.div_ceil(128) >= 9 * gpu.multiprocessors();
        Route::Gemm { row_blocks: if wide { 16 } else { 8 }, split: false }
    }
}

/// Inputs as int8 codes: in the order of tiles, or row by row.
pub(crate) fn quantise_rows(plain: bool) -> KernelSpec {
    KernelSpec::new(&QUANTISE_ROWS, "quantise_rows").define("PLAIN", u32::from(plain))
}

/// All kernels of packed tiles.
pub(crate) fn kernels() -> Vec<KernelSpec> {
    let mut kernels = vec![
        Format::F16.pack_inputs(),
        Format::Bf16.pack_inputs(),
        Format::Int8.pack_inputs(),
        quantise_rows(true),
        KernelSpec::new(&ADD_SLICES, "add_slices"),
    ];
    // zeros are an argument
    for format in Format::all().into_iter().filter(|f| !matches!(f, Format::Int4 { zeros: true, .. })) {
        kernels.extend([(1, 1), (2, 1), (2, 2)].map(|(rows, outputs)| format.gemv(rows, outputs, false)));
        if format != Format::Int8 {
            kernels.push(format.gemv(1, 1, true));
        }
        if let Format::Int4 { .. } = format {
            kernels.extend([false, true].map(|direct| format.gemv(1, 2, direct)));
        }
        kernels.push(format.gemm(8, false));
        if !matches!(format, Format::Int4 { .. }) {
            kernels.push(format.gemm(16, false));
        }
        if format != Format::Int8 {
            kernels.push(format.gemm(8, true));
        }
    }
    kernels
}

/// Weights that are tiles: they differ in how they are packed, and are multiplied alike.
pub(crate) trait Tiled: Send + Sync + std::fmt::Debug {
    /// The tiles.
    fn tiles(&self) -> &Tiles;
}

impl<T: Tiled> DeviceLinear for T {
    fn n(&self) -> usize {
        self.tiles().n
    }
    fn k(&self) -> usize {
        self.tiles().k
    }
    fn bytes(&self) -> usize {
        self.tiles().bytes()
    }
    fn reserve(&self, rows: usize, workspace: &mut Workspace) -> Result<(), GpuError> {
        self.tiles().reserve(rows, workspace)
    }
    fn forward(
        &self,
        x: &Buffer<f32>,
        rows: usize,
        y: &Buffer<f32>,
        workspace: &mut Workspace,
    ) -> Result<(), GpuError> {
        let tiles = self.tiles();
        tiles.forward(x, rows, y, workspace, tiles.route(rows))
    }
}

/// Weights in device memory, as the kernels see them.
#[derive(Debug)]
pub(crate) struct Tiles {
    pub(crate) format: Format,
    pub(crate) n: usize,
    /// Columns of x.
    pub(crate) k: usize,
    pub(crate) units: usize,
    pub(crate) words: Buffer<u32>,
    /// Column of x at each stored position, −1: zero.
    pub(crate) gather: Option<Buffer<i32>>,
    /// Scales (and zeros) of groups `[n / 16][groups][16]`.
    pub(crate) scales: Option<Buffer<u16>>,
    pub(crate) zeros: Option<Buffer<u16>>,
    /// Scale of each output.
    pub(crate) output_scales: Option<Buffer<f32>>,
}

fn address<T: bytemuck::NoUninit + bytemuck::AnyBitPattern>(buffer: &Option<Buffer<T>>) -> Arg<'static> {
    buffer.as_ref().map_or(Arg::Pointer(0), Buffer::arg)
}

impl Tiles {
    /// Bytes that one product reads of the weights.
    pub(crate) fn bytes(&self) -> usize {
        let scales = [&self.scales, &self.zeros].into_iter().flatten().map(|b| 2 * b.len()).sum::<usize>();
        4 * self.words.len() + scales + self.output_scales.as_ref().map_or(0, |b| 4 * b.len())
    }

    /// Whether a kernel can take x as it is: in its order, in whole units, its sums not asked for.
    pub(crate) fn is_direct(&self) -> bool {
        let as_they_are = self.gather.is_none() && self.k == self.units * UNIT && self.zeros.is_none();
        as_they_are && self.format != Format::Int8
    }

    /// The layout for `rows` rows.
    pub(crate) fn route(&self, rows: usize) -> Route {
        self.format.route(self.words.gpu(), rows, self.n, self.is_direct())
    }

    /// The layout that streams weights past `rows` rows.
    pub(crate) fn streamed(&self, rows: usize) -> Route {
        self.format.streamed(self.words.gpu(), rows, self.n, self.is_direct())
    }

    /// The layout of whole sums in tiles.
    pub(crate) fn tiled(&self, rows: usize) -> Route {
        self.format.tiled(self.words.gpu(), rows, self.n)
    }

    pub(crate) fn needs(&self, rows: usize, route: Route) -> Needs {
        if let Route::Gemv { direct: true, .. } = route {
            return Needs::default();
        }
        let padded = rows.next_multiple_of(8);
        Needs {
            inputs: padded * self.units * if self.format == Format::Int8 { 16 } else { 32 },
            per_row: match self.format {
                Format::Int8 => padded,
                Format::Int4 { group, zeros: true } => padded * self.units * UNIT / group,
                _ => 0,
            },
            partial: if matches!(route, Route::Gemm { split: true, .. }) { SLICES * rows * self.n } else { 0 },
        }
    }

    /// Makes room for up to `rows` rows.
    pub(crate) fn reserve(&self, rows: usize, workspace: &mut Workspace) -> Result<(), GpuError> {
        // fewer rows may be split where more are not; of those with equally many blocks the last needs most
        let mut all = (1..=rows / 64).map(|blocks| 64 * blocks).chain([rows]);
        all.try_for_each(|r| workspace.fit(self.needs(r, self.route(r))))
    }

    /// y `[rows, n]` = x `[rows, k]` · Wᵀ by `route`.
    pub(crate) fn forward(
        &self,
        x: &Buffer<f32>,
        rows: usize,
        y: &Buffer<f32>,
        workspace: &mut Workspace,
        route: Route,
    ) -> Result<(), GpuError> {
        check_rows("tile_gemv", x, y, rows, self.n, self.k)?;
        if rows == 0 || self.n == 0 {
            return Ok(());
        }
        if self.units == 0 {
            return Err(GpuError::shape("tile_gemv", "x has no columns"));
        }
        workspace.fit(self.needs(rows, route))?;
        if let Route::Gemv { direct: true, .. } = route {
            return self.multiply(x.arg(), rows, y, workspace, route);
        }
        self.prepare(x, rows, workspace)?;
        self.multiply(workspace.inputs.arg(), rows, y, workspace, route)
    }

    /// Inputs into the workspace, in the kernels' order and numbers.
    pub(crate) fn prepare(&self, x: &Buffer<f32>, rows: usize, workspace: &Workspace) -> Result<(), GpuError> {
        let gpu = x.gpu();
        let (rows_arg, k, units) = (Arg::I32(rows as i32), Arg::I32(self.k as i32), Arg::I32(self.units as i32));
        let padded = rows.next_multiple_of(8);
        let kernel = self.format.pack_inputs();
        if self.format == Format::Int8 {
            let args = [x.arg(), workspace.inputs.arg(), workspace.per_row.arg(), rows_arg, k, units];
            // SAFETY: x holds rows × k values; the workspace holds a 64-byte row of codes per unit and padded row, and their scales.
            return unsafe { gpu.launch(&kernel, LaunchShape::line(padded, 1024), &args) };
        }
        // a thread takes the loads of one group where sums are asked for, one load elsewhere
        let (loads, sums) = match self.format {
            Format::Int4 { group, zeros: true } => (group / 32, workspace.per_row.arg()),
            _ => (1, Arg::Pointer(0)),
        };
        let threads = padded / 8 * (2 * self.units / loads) * 32;
        let packed = workspace.inputs.arg();
        let args = [x.arg(), address(&self.gather), packed, sums, rows_arg, k, units, Arg::I32(loads as i32)];
        // SAFETY: x holds rows × k values, `gather` one column per stored position, the workspace 16 bytes per load and lane and a sum
        // per group and padded row.
        unsafe { gpu.launch(&kernel, LaunchShape::line(threads.div_ceil(256), 256), &args) }
    }

    /// The product of what [`Self::prepare`] left, or of f32 inputs where the route is direct.
    fn multiply(
        &self,
        inputs: Arg<'static>,
        rows: usize,
        y: &Buffer<f32>,
        workspace: &Workspace,
        route: Route,
    ) -> Result<(), GpuError> {
        let gpu = y.gpu();
        let split = matches!(route, Route::Gemm { split: true, .. });
        let to = if split { &workspace.partial } else { y };
        let args = [
            self.words.arg(),
            inputs,
            address(&self.scales),
            address(&self.zeros),
            workspace.per_row.arg(),
            workspace.per_row.arg(),
            address(&self.output_scales),
            to.arg(),
            Arg::I32(rows as i32),
            Arg::I32(self.n as i32),
            Arg::I32(self.units as i32),
        ];
        match route {
            Route::Gemv { row_blocks, output_blocks, direct } => {
                let shape = LaunchShape::grid(
                    self.n.div_ceil(16 * output_blocks),
                    rows.div_ceil(8 * row_blocks),
                    1,
                    32 * SLICES,
                );
                // SAFETY: tiles, scales and inputs are padded to whole blocks and units; y holds rows × n values.
                unsafe { gpu.launch(&self.format.gemv(row_blocks, output_blocks, direct), shape, &args) }
            }
            Route::Gemm { row_blocks, .. } => {
                let slices = if split { SLICES } else { 1 };
                let shape = LaunchShape::grid(self.n.div_ceil(128), rows.div_ceil(8 * row_blocks), slices, 256)
                    .with_shared(self.format.stages() * self.format.stage_bytes(row_blocks));
                // SAFETY: as above; the workspace holds a slice's sums for every slice.
                unsafe { gpu.launch(&self.format.gemm(row_blocks, split), shape, &args) }?;
                if !split {
                    return Ok(());
                }
                let count = rows * self.n;
                let args = [to.arg(), y.arg(), Arg::Pointer(count as u64)];
                let kernel = KernelSpec::new(&ADD_SLICES, "add_slices");
                // SAFETY: 8 × count sums are there, and y holds count values.
                unsafe { gpu.launch(&kernel, LaunchShape::line(count.div_ceil(256), 256), &args) }
            }
        }
    }
}

/// Refuses buffers that are too short for `rows` rows.
pub(crate) fn check_rows(
    kernel: &'static str,
    x: &Buffer<f32>,
    y: &Buffer<f32>,
    rows: usize,
    n: usize,
    k: usize,
) -> Result<(), GpuError> {
    if x.len() < rows * k || y.len() < rows * n {
        let reason = format!(
            "{rows} rows of {k} → {n} need {} and {} values, the buffers hold {} and {}",
            rows * k,
            rows * n,
            x.len(),
            y.len()
        );
        return Err(GpuError::shape(kernel, reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::{Bf16Weights, F16Weights, Group4Weights, GroupCodes, Int8Weights};
    use crate::sampled::normals;
    use crate::{Arch, Nvrtc};

    fn weights(gpu: &Gpu, format: Format, n: usize, k: usize) -> Result<Tiles, GpuError> {
        let bits: Vec<u16> = (0..n * k).map(|i| 0x3c00 | (i * 7919 % 1021) as u16).collect();
        let codes: Vec<u8> = (0..n * k).map(|i| (i * 7919 % 251 % 16) as u8).collect();
        Ok(match format {
            Format::F16 => F16Weights::upload(gpu, &bits, n, k)?.0,
            Format::Bf16 => Bf16Weights::upload(gpu, &bits, n, k)?.0,
            Format::Int8 => {
                let codes: Vec<i8> = codes.iter().map(|&c| 8 * c as i8 - 60).collect();
                Int8Weights::upload(gpu, &codes, &normals(n, 1), n, k)?.0
            }
            Format::Int4 { group, zeros } => {
                let scales = normals(n * k.div_ceil(group), 2);
                let zero = |i: usize| if zeros { (i % 5) as f32 + 5.5 } else { 8.0 };
                let zeros: Vec<f32> = (0..scales.len()).map(zero).collect();
                let source = GroupCodes { n, k, group, codes: &codes, scales: &scales, zeros: &zeros, order: None };
                Group4Weights::upload(gpu, &source)?.0
            }
        })
    }

    /// Slices of nothing, of one unit and of several: whatever the layout of the work, the sums are added alike.
    #[test]
    fn every_route_gives_the_same_bits() {
        let Ok(nvrtc) = Nvrtc::open() else { return eprintln!("skipped: no compiler") };
        let gpu = Gpu::emulated(Arch::Sm80, nvrtc);
        let (n, rows) = (36, 10);
        for (format, k) in Format::all().into_iter().flat_map(|f| [64, 256, 640, 1088].map(|k| (f, k))) {
            let tiles = weights(&gpu, format, n, k).unwrap();
            let x = gpu.upload(&normals(rows * k, 3)).unwrap();
            let mut workspace = Workspace::new(&gpu).unwrap();
            let mut by = |route| {
                let y = gpu.upload(&vec![f32::NAN; rows * n]).unwrap();
                tiles.forward(&x, rows, &y, &mut workspace, route).unwrap();
                y.read().unwrap().into_iter().map(f32::to_bits).collect::<Vec<u32>>()
            };
            let mut streamed =
                |row_blocks, output_blocks, direct| by(Route::Gemv { row_blocks, output_blocks, direct });
            let expected = streamed(1, 1, false);
            if tiles.is_direct() {
                assert_eq!(streamed(1, 1, true), expected, "{format:?} k {k}: inputs as they are");
            }
            assert_eq!(streamed(2, 1, false), expected, "{format:?} k {k}: 16 rows");
            assert_eq!(streamed(2, 2, false), expected, "{format:?} k {k}: 16 rows, 32 outputs");
            if let Format::Int4 { .. } = format {
                assert_eq!(streamed(1, 2, false), expected, "{format:?} k {k}: 32 outputs");
                if tiles.is_direct() {
                    assert_eq!(streamed(1, 2, true), expected, "{format:?} k {k}: 32 outputs, inputs as they are");
                }
            }
            assert_eq!(by(Route::Gemm { row_blocks: 8, split: false }), expected, "{format:?} k {k}: whole");
            if !matches!(format, Format::Int4 { .. }) {
                assert_eq!(by(Route::Gemm { row_blocks: 16, split: false }), expected, "{format:?} k {k}: 128 rows");
            }
            if format != Format::Int8 {
                assert_eq!(by(Route::Gemm { row_blocks: 8, split: true }), expected, "{format:?} k {k}: split");
            }
        }
    }

    /// More rows and outputs than a tile has, by tiles of 64 and of 128 rows.
    #[test]
    fn tiles_of_more_rows_give_the_same_bits() {
        let Ok(nvrtc) = Nvrtc::open() else { return eprintln!("skipped: no compiler") };
        let gpu = Gpu::emulated(Arch::Sm80, nvrtc);
        let (rows, n, k) = (138, 130, 576);
        for format in [Format::F16, Format::Bf16, Format::Int8] {
            let tiles = weights(&gpu, format, n, k).unwrap();
            let x = gpu.upload(&normals(rows * k, 4)).unwrap();
            let mut workspace = Workspace::new(&gpu).unwrap();
            let [small, large] = [8, 16].map(|row_blocks| {
                let y = gpu.upload(&vec![f32::NAN; rows * n]).unwrap();
                tiles.forward(&x, rows, &y, &mut workspace, Route::Gemm { row_blocks, split: false }).unwrap();
                y.read().unwrap().into_iter().map(f32::to_bits).collect::<Vec<u32>>()
            });
            assert_eq!(small, large, "{format:?}");
        }
    }
}
