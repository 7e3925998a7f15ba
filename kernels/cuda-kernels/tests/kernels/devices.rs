//! The device itself: memory, launches, recordings, and what happens when a kernel goes astray.

use cuda_kernels::{Arg, Gpu, GpuError, KernelSpec, LaunchShape, Source};

use crate::devices;

static SCALE: Source = Source {
    name: "scale.cu",
    text: r#"
#include "warp.cuh"
// y = x over the sum of its block
extern "C" __global__ void normalise(const float *x, float *y, int n) {
    __shared__ float scratch[32];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float value = i < n ? x[i] : 0.0f;
    float sum = block_sum(value, scratch);
    if (i < n) y[i] = value / sum;
}
extern "C" __global__ void astray(float *y) { y[1 << 20] = 1.0f; }
"#,
};

fn normalise(gpu: &Gpu, x: &cuda_kernels::Buffer<f32>, y: &cuda_kernels::Buffer<f32>) -> Result<(), GpuError> {
    let kernel = KernelSpec::new(&SCALE, "normalise");
    let args = [x.arg(), y.arg(), Arg::I32(x.len() as i32)];
    // SAFETY: both buffers hold `x.len()` values and live until the tests read them.
    unsafe { gpu.launch(&kernel, LaunchShape::line(x.len().div_ceil(96), 96), &args) }
}

#[test]
fn small_kernels_run_where_there_is_no_gpu() {
    for gpu in devices() {
        let values: Vec<f32> = (0..200).map(|i| 1.0 + (i % 7) as f32).collect();
        let (x, y) = (gpu.upload(&values).unwrap(), gpu.upload(&vec![f32::NAN; 200]).unwrap());
        normalise(&gpu, &x, &y).unwrap();
        for (i, got) in y.read().unwrap().into_iter().enumerate() {
            let block = &values[i / 96 * 96..(i / 96 * 96 + 96).min(200)];
            let expected = values[i] / block.iter().sum::<f32>();
            assert!((got - expected).abs() < 1e-6, "{} {i}: {got} != {expected}", gpu.name());
        }
    }
}

#[test]
fn recordings_run_again_on_what_the_buffers_then_hold() {
    for gpu in devices() {
        let (x, y) = (gpu.upload(&[1.0f32, 3.0]).unwrap(), gpu.upload(&[f32::NAN; 2]).unwrap());
        normalise(&gpu, &x, &y).unwrap();
        let recording = gpu.record(|| normalise(&gpu, &x, &y)).unwrap();
        assert_eq!(y.read().unwrap(), [0.25, 0.75], "{}", gpu.name());
        x.write(0, &[1.0, 1.0]).unwrap();
        recording.replay().unwrap();
        assert_eq!(y.read().unwrap(), [0.5, 0.5], "{}", gpu.name());
    }
}

#[test]
fn memory_is_copied_and_cleared() {
    for gpu in devices() {
        let (a, b) = (gpu.upload(&[1u32, 2, 3]).unwrap(), gpu.zeros::<u32>(4).unwrap());
        b.copy_from(1, &a, 0, 3).unwrap();
        assert_eq!(b.read().unwrap(), [0, 1, 2, 3]);
        b.zero().unwrap();
        assert_eq!(b.read().unwrap(), [0; 4]);
    }
}

/// The emulator alone: on a device this would poison every later call of the process.
#[test]
fn an_emulated_device_stops_what_goes_astray() {
    for gpu in devices().into_iter().filter(Gpu::is_emulated) {
        let y = gpu.zeros::<f32>(4).unwrap();
        // SAFETY: the emulator refuses the access.
        let error = unsafe { gpu.launch(&KernelSpec::new(&SCALE, "astray"), LaunchShape::line(1, 32), &[y.arg()]) };
        let words = error.unwrap_err().to_string();
        assert!(words.contains("astray") && words.contains("st.global"), "{words}");
        let unwritten = gpu.alloc::<f32>(4).unwrap();
        assert!(unwritten.read().is_err());
        let start = gpu.moment().unwrap();
        assert_eq!(start.milliseconds_until(&gpu.moment().unwrap()).unwrap(), None);
        let shape = LaunchShape::line(1, 32).with_shared(300 << 10);
        // SAFETY: refused before it is launched.
        let error = unsafe { gpu.launch(&KernelSpec::new(&SCALE, "astray"), shape, &[y.arg()]) };
        assert!(error.unwrap_err().to_string().contains("shared memory"));
    }
}
