//! NVIDIA's own product, as the rival: cuBLASLt through the driver's stream, opened when first asked for.

use std::ffi::c_void;
use std::ptr::{from_ref, null_mut};

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;

use crate::number::Number;
use crate::{Buffer, Gpu, GpuError};

/// What the library may use beside the operands, bytes: what NVIDIA recommends for Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;
/// Proposals of the library that are timed against each other.
const PROPOSALS: usize = 8;
/// Runs of a proposal that are timed.
const RUNS: usize = 3;

/// A product that the library has planned.
pub(super) struct CublasLt {
    gpu: Gpu,
    handle: sys::cublasLtHandle_t,
    operation: sys::cublasLtMatmulDesc_t,
    /// Of B, A and C, as the column-major library sees them.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    addresses: [u64; 3],
    workspace: Buffer<u32>,
    stream: u64,
    best: sys::cublasLtMatmulAlgo_t,
}

// SAFETY: handles are addresses inside the library, which is thread-safe; one thread at a time uses a bench.
unsafe impl Send for CublasLt {}

fn refused(call: &'static str) -> impl Fn(CublasError) -> String {
    move |e| format!("{call} failed: {e}")
}

impl CublasLt {
    /// Plans C `[m, n]` = A `[m, k]` · B `[n, k]`ᵀ at `addresses` of A, B and C, or says why not.
    pub(super) fn open(
        gpu: &Gpu,
        number: Number,
        [m, n, k]: [usize; 3],
        addresses: [u64; 3],
    ) -> Result<CublasLt, String> {
        let data_type = match number {
            Number::F32 => return Err("compared in 16 bits only: in f32 the library would round to TF32 or not".into()),
            Number::F16 => sys::cudaDataType::CUDA_R_16F,
            Number::Bf16 => sys::cudaDataType::CUDA_R_16BF,
        };
        let stream = gpu.backend().raw_stream().map_err(|e| e.to_string())?;
        let stream = stream.ok_or("cuBLASLt runs on real devices only")?;
        // SAFETY: opens and closes a library by its usual names.
        if !unsafe { sys::is_culib_present() } {
            return Err("no cuBLASLt library (libcublasLt.so) on this machine".into());
        }
        let workspace = gpu.alloc(WORKSPACE_BYTES / 4).map_err(|e| e.to_string())?;
        let layout = |rows: usize, columns: usize| {
            result::create_matrix_layout(data_type, rows as u64, columns as u64, rows as i64)
                .map_err(refused("cublasLtMatrixLayoutCreate"))
        };
        let mut product = CublasLt {
            gpu: gpu.clone(),
            handle: null_mut(),
            operation: null_mut(),
            layouts: [null_mut(); 3],
            addresses,
            workspace,
            stream,
            // SAFETY: an array of integers; it is filled before it is used.
            best: unsafe { std::mem::zeroed() },
        };
        product.handle = result::create_handle().map_err(refused("cublasLtCreate"))?;
        let (sums, scales) = (sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sys::cudaDataType::CUDA_R_32F);
        product.operation = result::create_matmul_desc(sums, scales).map_err(refused("cublasLtMatmulDescCreate"))?;
        // row-major C is column-major Cᵀ = B · Aᵀ; row-major B is column-major Bᵀ, to be turned
        let turned = 1i32; // CUBLAS_OP_T
        let attribute = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA;
        // SAFETY: the attribute is of this type, and the library copies it.
        unsafe { result::set_matmul_desc_attribute(product.operation, attribute, from_ref(&turned).cast(), 4) }
            .map_err(refused("cublasLtMatmulDescSetAttribute"))?;
        for (slot, (rows, columns)) in [(k, n), (k, m), (n, m)].into_iter().enumerate() {
            product.layouts[slot] = layout(rows, columns)?;
        }
        product.choose()?;
        Ok(product)
    }

    /// Times the library's first proposals and keeps the fastest.
    fn choose(&mut self) -> Result<(), String> {
        let mut best = None;
        for proposal in self.proposals()? {
            // a proposal that does not run is no rival
            if self.multiply(&proposal).is_err() {
                continue;
            }
            let time = self.time(&proposal).map_err(|e| e.to_string())?;
            if best.as_ref().is_none_or(|&(shortest, _)| time < shortest) {
                best = Some((time, proposal));
            }
        }
        self.best = best.ok_or("cuBLASLt proposes nothing that runs")?.1;
        Ok(())
    }

    fn proposals(&self) -> Result<Vec<sys::cublasLtMatmulAlgo_t>, String> {
        let preference = result::create_matmul_pref().map_err(refused("cublasLtMatmulPreferenceCreate"))?;
        let attribute = sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        // SAFETY: zeros are valid for these plain results; the library fills `found` of them.
        let mut results: [sys::cublasLtMatmulHeuristicResult_t; PROPOSALS] = unsafe { std::mem::zeroed() };
        let mut found = 0;
        let [b, a, c] = self.layouts;
        // SAFETY: the attribute is a size; all handles are alive; there is room for as many results as are asked for.
        let outcome = unsafe {
            let bytes = from_ref(&WORKSPACE_BYTES).cast();
            let outcome =
                result::set_matmul_pref_attribute(preference, attribute, bytes, size_of::<usize>()).and_then(|()| {
                    sys::cublasLtMatmulAlgoGetHeuristic(
                        self.handle,
                        self.operation,
                        b,
                        a,
                        c,
                        c,
                        preference,
                        PROPOSALS as i32,
                        results.as_mut_ptr(),
                        &mut found,
                    )
                    .result()
                });
            // nothing can be done about a preference that the library does not take back
            let _ = result::destroy_matmul_pref(preference);
            outcome
        };
        outcome.map_err(refused("cublasLtMatmulAlgoGetHeuristic"))?;
        let good = |r: &&sys::cublasLtMatmulHeuristicResult_t| r.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS;
        Ok(results.iter().take(found.max(0) as usize).filter(good).map(|r| r.algo).collect())
    }

    fn time(&self, proposal: &sys::cublasLtMatmulAlgo_t) -> Result<f32, GpuError> {
        let start = self.gpu.moment()?;
        for _ in 0..RUNS {
            self.multiply(proposal)?;
        }
        let end = self.gpu.moment()?;
        Ok(start.milliseconds_until(&end)?.unwrap_or(f32::INFINITY))
    }

    fn multiply(&self, proposal: &sys::cublasLtMatmulAlgo_t) -> Result<(), GpuError> {
        let (one, zero) = (1.0f32, 0.0f32);
        let [a, b, c] = self.addresses.map(|address| address as *mut c_void);
        let [b_layout, a_layout, c_layout] = self.layouts;
        // SAFETY: the layouts are those of the matrices at these addresses, which the bench keeps; so is the workspace's size.
        unsafe {
            result::matmul(
                self.handle,
                self.operation,
                from_ref(&one).cast(),
                from_ref(&zero).cast(),
                b,
                b_layout,
                a,
                a_layout,
                c,
                c_layout,
                c,
                c_layout,
                proposal,
                self.workspace.address() as *mut c_void,
                WORKSPACE_BYTES,
                self.stream as sys::cudaStream_t,
            )
        }
        .map_err(|e| GpuError::Driver { call: "cublasLtMatmul".into(), reason: e.to_string() })
    }

    /// Puts one product behind the work before.
    pub(super) fn run(&self) -> Result<(), GpuError> {
        self.gpu.backend().raw_stream()?;
        self.multiply(&self.best)
    }
}

impl Drop for CublasLt {
    fn drop(&mut self) {
        // SAFETY: created by `open`, destroyed once; the library takes null for nothing. It keeps no error that anybody could act on.
        unsafe {
            for layout in self.layouts.into_iter().filter(|layout| !layout.is_null()) {
                let _ = result::destroy_matrix_layout(layout);
            }
            if !self.operation.is_null() {
                let _ = result::destroy_matmul_desc(self.operation);
            }
            if !self.handle.is_null() {
                let _ = result::destroy_handle(self.handle);
            }
        }
    }
}
