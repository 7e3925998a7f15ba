//! The code that talks to the driver, on machines without a GPU: each test here runs again in a child process whose `libcuda.so` is the
//! emulated driver, or something worse.

mod missing;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use cuda_kernels::{
    Arch, Arg, Buffer, Gpu, GpuError, KernelSpec, LaunchShape, Nvrtc, Source, TensorMap, TensorMapShape, all_kernels,
};

use crate::compiler;

/// Set in a child process: the test that it is for.
const CHILD: &str = "DRIVER_TEST_CHILD";

/// Whether `libcuda.so` is what a test here wants.
pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Whether this is a child process whose device is another.
fn is_child_with_other(settings: &str) -> bool {
    is_child() && std::env::var_os(emulated_driver::SETTINGS).is_none_or(|own| own != *settings)
}

/// What a child finds as `libcuda.so`.
enum Library {
    /// The emulated driver with these settings.
    Emulated(&'static str),
    /// The emulated driver without one of its functions.
    Lacking(&'static str),
    /// A library that is no driver at all.
    Foreign,
    None,
}

/// The emulated driver, which cargo builds beside the tests.
fn library() -> Option<PathBuf> {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().unwrap();
    let found = [folder, folder.parent().unwrap()].map(|folder| folder.join("libemulated_driver.so"));
    let found = found.into_iter().find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: no emulated driver beside {}", tests.display());
    }
    found
}

/// A fresh folder for test `name`.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("driver").join(name.replace("::", "-"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The test program again, with `arguments`, where `libcuda.so` is `driver`.
fn child(program: &Path, name: &str, driver: &Library, arguments: &[&str]) -> Option<Command> {
    let (emulated, folder) = (library()?, folder(name));
    let names = ["libcuda.so", "libcuda.so.1"].map(|name| folder.join(name));
    let mut command = Command::new(program);
    match driver {
        Library::Emulated(settings) => {
            names.iter().for_each(|name| symlink(&emulated, name).unwrap());
            command.env(emulated_driver::SETTINGS, settings);
        }
        Library::Lacking(function) => {
            let mut bytes = fs::read(&emulated).unwrap();
            let places: Vec<usize> = (0..bytes.len() - function.len())
                .filter(|&at| bytes[at..].starts_with(function.as_bytes()) && bytes[at + function.len()] == 0)
                .collect();
            assert!(!places.is_empty(), "no {function} in the emulated driver");
            places.into_iter().for_each(|at| bytes[at + function.len() - 1] = b'?');
            names.iter().for_each(|name| fs::write(name, &bytes).unwrap());
        }
        Library::Foreign => {
            let maps = fs::read_to_string("/proc/self/maps").unwrap();
            let libc =
                maps.lines().find_map(|line| line.split(' ').next_back().filter(|path| path.contains("libc.so")));
            names.iter().for_each(|name| symlink(libc.unwrap(), name).unwrap());
        }
        Library::None => {}
    }
    command.args(arguments).env(CHILD, name).env("LD_LIBRARY_PATH", &folder);
    Some(command)
}

fn shown(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs `test` in a child process; `name` is the calling test's own.
fn in_child(name: &str, driver: Library, test: impl FnOnce()) {
    let name = &format!("driver::{name}");
    if is_child() {
        return test();
    }
    let program = std::env::current_exe().unwrap();
    let Some(mut command) = child(&program, name, &driver, &["--exact", name, "--nocapture"]) else { return };
    let output = command.output().unwrap();
    assert!(output.status.success() && shown(&output).contains("1 passed"), "{}\n{}", output.status, shown(&output));
}

static TEXTS: Source = Source {
    name: "driver.cu",
    text: r#"
extern "C" __global__ void twice(const float *x, float *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = 2.0f * x[i];
}
extern "C" __global__ void astray(float *y) { y[1 << 20] = 1.0f; }
extern "C" __global__ void large(float *y) {
    extern __shared__ float values[];
    values[threadIdx.x] = 3.0f;
    __syncthreads();
    y[threadIdx.x] = values[threadIdx.x];
}
"#,
};

fn open() -> Result<Gpu, GpuError> {
    Gpu::open(0, compiler().expect("a compiler, which the test asked for before"))
}

fn twice(gpu: &Gpu, x: &Buffer<f32>, y: &Buffer<f32>) -> Result<(), GpuError> {
    let kernel = KernelSpec::new(&TEXTS, "twice");
    // SAFETY: both buffers hold `x.len()` values and live until they are read.
    unsafe { gpu.launch(&kernel, LaunchShape::line(1, 32), &[x.arg(), y.arg(), Arg::I32(x.len() as i32)]) }
}

fn astray(gpu: &Gpu, y: &Buffer<f32>) -> Result<(), GpuError> {
    // SAFETY: the emulated device refuses the access.
    unsafe { gpu.launch(&KernelSpec::new(&TEXTS, "astray"), LaunchShape::line(1, 1), &[y.arg()]) }
}

#[track_caller]
fn assert_says<T>(outcome: Result<T, GpuError>, words: &[&str]) {
    let error = outcome.err().expect("an error").to_string();
    assert!(words.iter().all(|word| error.contains(word)), "{error}\nlacks one of {words:?}");
}

/// What the driver still holds: contexts, streams, events, modules, graphs, allocations.
fn living() -> [u64; 6] {
    let mut counts = [u64::MAX; 6];
    // SAFETY: the emulated driver's function of that name, which writes six numbers.
    unsafe {
        let library = libloading::Library::new("libcuda.so.1").unwrap();
        let ask = library.get::<unsafe extern "C" fn(*mut [u64; 6]) -> u32>(b"emulatedDriverLiving").unwrap();
        assert_eq!(ask(&mut counts), 0);
    }
    counts
}

/// Tests of all parts: launches of every form (tensor maps, large shared memory, recordings), against their oracles.
#[test]
fn the_other_tests_pass_on_a_driver() {
    if compiler().is_none() || is_child() {
        return;
    }
    let most = ["devices::", "rows::", "linear::", "gemv::", "attention::cache::", "attention::traps::"];
    let hopper = ["gemm::every", "quantized::every", "attention::forward::other"];
    let runs = [
        ("capability=9.0", [most.as_slice(), &hopper].concat()),
        ("capability=8.0", most.to_vec()),
        ("capability=12.0", vec!["devices::", "rows::", "linear::", "attention::cache::"]),
    ];
    for (settings, tests) in runs {
        let program = std::env::current_exe().unwrap();
        let arguments = [tests.as_slice(), &["--test-threads=2"]].concat();
        let name = format!("suite-{settings}");
        let Some(mut child) = child(&program, &name, &Library::Emulated(settings), &arguments) else { return };
        let output = child.output().unwrap();
        assert!(output.status.success(), "{settings}: {}\n{}", output.status, shown(&output));
        assert!(!shown(&output).contains(" 0 passed"), "{}", shown(&output));
    }
}

#[test]
fn nothing_is_left_behind() {
    if compiler().is_none() {
        return;
    }
    in_child("nothing_is_left_behind", Library::Emulated(""), || {
        let gpu = open().unwrap();
        assert!(gpu.name().starts_with(emulated_driver::NAME) && !gpu.is_emulated(), "{}", gpu.name());
        assert_eq!((gpu.multiprocessors(), gpu.l2_bytes()), (132, 50 << 20));
        let before = gpu.memory().unwrap();
        let (x, y) = (gpu.upload(&[1.0f32, 3.0]).unwrap(), gpu.zeros::<f32>(2).unwrap());
        let start = gpu.moment().unwrap();
        twice(&gpu, &x, &y).unwrap();
        let recording = gpu.record(|| twice(&gpu, &x, &y)).unwrap();
        recording.replay().unwrap();
        let end = gpu.moment().unwrap();
        assert!(start.milliseconds_until(&end).unwrap().unwrap() > 0.0);
        assert_eq!(y.read().unwrap(), [2.0, 6.0]);
        // longer than what is read by way of page-locked memory
        let long = gpu.upload(&vec![7u8; (1 << 20) + 1]).unwrap();
        assert!(long.read().unwrap().iter().all(|&value| value == 7));
        assert_eq!(living(), [1, 1, 2, 1, 2, 4]);
        drop((x, y, long));
        assert_eq!(gpu.memory().unwrap(), before);
        drop((recording, start, end, gpu));
        assert_eq!(living(), [0; 6]);
    });
}

#[test]
fn memory_that_does_not_suffice() {
    if compiler().is_none() {
        return;
    }
    in_child("memory_that_does_not_suffice", Library::Emulated("memory=1000000"), || {
        let gpu = open().unwrap();
        let before = gpu.memory().unwrap();
        let held = gpu.zeros::<u8>(400_000).unwrap();
        assert_says(gpu.zeros::<u8>(700_000), &["700000 bytes asked for", "600000 free of 1000000", "smaller model"]);
        // what is there goes on, and everything comes back
        assert_eq!(held.read().unwrap(), vec![0; 400_000]);
        let more = gpu.zeros::<u8>(500_000).unwrap();
        drop((held, more));
        assert_eq!(gpu.memory().unwrap(), before);
    });
}

/// The first error is the one that matters: everything later fails because of it.
#[test]
fn a_kernel_that_goes_astray() {
    if compiler().is_none() {
        return;
    }
    in_child("a_kernel_that_goes_astray", Library::Emulated(""), || {
        let gpu = open().unwrap();
        let (x, y) = (gpu.upload(&[1.0f32]).unwrap(), gpu.zeros::<f32>(1).unwrap());
        twice(&gpu, &x, &y).unwrap();
        assert_eq!(y.read().unwrap(), [2.0]);
        // the launch itself succeeds; the next call learns of it
        astray(&gpu, &y).unwrap();
        let first = ["illegal memory access", "CUDA_ERROR_ILLEGAL_ADDRESS", "last idle: `astray`"];
        assert_says(y.read(), &first);
        let later = [["no more work from this process", "an earlier error"].as_slice(), &first].concat();
        assert_says(gpu.alloc::<f32>(1), &later);
        assert_says(twice(&gpu, &x, &y), &later);
        assert_says(gpu.synchronize(), &later);
        assert_says(gpu.record(|| Ok(())).map(|_| ()), &later);
    });
}

#[test]
fn a_launch_that_fails() {
    if compiler().is_none() {
        return;
    }
    in_child("a_launch_that_fails", Library::Emulated("fail-launch=2"), || {
        let gpu = open().unwrap();
        let (x, y) = (gpu.upload(&[1.0f32]).unwrap(), gpu.zeros::<f32>(1).unwrap());
        let recording = gpu.record(|| twice(&gpu, &x, &y)).unwrap();
        recording.replay().unwrap();
        recording.replay().unwrap();
        let words = ["unspecified launch failure", "last idle: `twice` 2 times"];
        assert_says(gpu.synchronize(), &words);
        assert_says(recording.replay(), &words);
    });
}

/// The wait ends, names the kernel, and so does everything after it, the end of the process included.
#[test]
fn a_kernel_that_does_not_end() {
    if compiler().is_none() {
        return;
    }
    in_child("a_kernel_that_does_not_end", Library::Emulated("hang-launch=2"), || {
        let gpu = open().unwrap();
        gpu.set_wait_limit(Duration::from_millis(100));
        let (x, y) = (gpu.upload(&[1.0f32]).unwrap(), gpu.zeros::<f32>(1).unwrap());
        twice(&gpu, &x, &y).unwrap();
        assert_eq!(y.read().unwrap(), [2.0]);
        let start = gpu.moment().unwrap();
        twice(&gpu, &x, &y).unwrap();
        let end = gpu.moment().unwrap();
        assert_says(y.read(), &["not done after 0.1 s", "a kernel does not end", "last idle: `twice`"]);
        assert_says(start.milliseconds_until(&end).map(|_| ()), &["earlier error", "`twice`"]);
        assert_says(gpu.upload(&[0u8; 100_000]).map(|_| ()), &["earlier error", "`twice`"]);
    });
}

/// Whoever meets the endless kernel first is the one that gives up: an event, memory given back, a long copy, a new module.
#[test]
fn every_wait_has_a_limit() {
    if compiler().is_none() {
        return;
    }
    for (settings, way) in [("hang-launch=1", 0), ("hang-launch=1 ", 1), (" hang-launch=1", 2), (" hang-launch=1 ", 3)]
    {
        if is_child_with_other(settings) {
            continue;
        }
        in_child("every_wait_has_a_limit", Library::Emulated(settings), || {
            let gpu = open().unwrap();
            gpu.set_wait_limit(Duration::from_millis(50));
            let (x, y) = (gpu.upload(&[1.0f32]).unwrap(), gpu.zeros::<f32>(1).unwrap());
            let long = gpu.zeros::<u8>(100_000).unwrap();
            let start = gpu.moment().unwrap();
            twice(&gpu, &x, &y).unwrap();
            let words = ["does not end", "`twice`"];
            match way {
                0 => assert_says(start.milliseconds_until(&gpu.moment().unwrap()).map(|_| ()), &words),
                1 => drop(long),
                2 => assert_says(long.write(0, &vec![1; 100_000]), &words),
                _ => assert_says(astray(&gpu, &y), &words),
            }
            assert_says(gpu.synchronize(), &words);
        });
    }
}

#[test]
fn a_driver_that_takes_no_image() {
    if compiler().is_none() {
        return;
    }
    in_child("a_driver_that_takes_no_image", Library::Emulated("refuse-ptx=1"), || {
        let gpu = open().unwrap();
        let x = gpu.upload(&[1.0f32]).unwrap();
        let words = [
            "refuses kernel twice",
            "machine code: no kernel image is available",
            "PTX: a PTX JIT",
            "ptxas fatal",
            "update",
        ];
        assert_says(twice(&gpu, &x, &x), &words);
        // nothing has run, so everything else goes on
        assert_eq!(x.read().unwrap(), [1.0]);
    });
}

#[test]
fn a_compiler_newer_than_the_driver() {
    let Some(nvrtc) = compiler() else { return };
    if !nvrtc.version().starts_with("13") {
        eprintln!("skipped: NVRTC {} makes PTX that this driver knows", nvrtc.version());
        return;
    }
    in_child("a_compiler_newer_than_the_driver", Library::Emulated("version=12060 capability=12.0"), || {
        let gpu = open().unwrap();
        let x = gpu.upload(&[1.0f32]).unwrap();
        let words = ["compiled with an unsupported toolchain", "NVRTC 13", "no newer than it"];
        assert_says(twice(&gpu, &x, &x), &words);
    });
}

/// What is written for Hopper runs on Hopper alone; shared memory is the device's and not that of what it runs the code of.
#[test]
fn devices_get_the_kernels_they_can_run() {
    if compiler().is_none() {
        return;
    }
    let devices = [
        ("capability=8.0", Arch::Sm80, 163),
        ("capability=8.6", Arch::Sm80, 99),
        ("capability=8.9", Arch::Sm89, 99),
        ("capability=9.0", Arch::Sm90a, 227),
        ("capability=10.0", Arch::Sm80, 227),
        ("capability=12.0", Arch::Sm80, 99),
    ];
    for (settings, arch, kilobytes) in devices {
        if is_child_with_other(settings) {
            continue;
        }
        in_child("devices_get_the_kernels_they_can_run", Library::Emulated(settings), || {
            let gpu = open().unwrap();
            assert_eq!(gpu.arch(), arch);
            let y = gpu.zeros::<f32>(32).unwrap();
            let launch = |bytes: usize| {
                let shape = LaunchShape::line(1, 32).with_shared(bytes);
                // SAFETY: 32 values are written, and 32 are there.
                unsafe { gpu.launch(&KernelSpec::new(&TEXTS, "large"), shape, &[y.arg()]) }
            };
            launch(kilobytes << 10).unwrap();
            assert_eq!(y.read().unwrap(), [3.0; 32]);
            let most = (kilobytes << 10).to_string();
            assert_says(launch((kilobytes << 10) + 1), &["bytes of shared memory", "this device", &most]);
            let hopper = KernelSpec::new(&TEXTS, "large").needs(Arch::Sm90a);
            // SAFETY: as above, or refused.
            let outcome = unsafe { gpu.launch(&hopper, LaunchShape::line(1, 32).with_shared(128), &[y.arg()]) };
            match arch {
                Arch::Sm90a => outcome.unwrap(),
                _ => assert_says(outcome, &["needs sm_90a", &settings.replace("capability=", "sm_").replace('.', "")]),
            }
            assert!(all_kernels().iter().any(|kernel| kernel.needs == Arch::Sm90a));
        });
    }
}

/// What a driver refuses is refused, and the device goes on.
#[test]
fn wrong_launches_are_refused() {
    if compiler().is_none() {
        return;
    }
    in_child("wrong_launches_are_refused", Library::Emulated(""), || {
        let gpu = open().unwrap();
        let (x, y) = (gpu.upload(&[1.0f32]).unwrap(), gpu.zeros::<f32>(1).unwrap());
        let kernel = KernelSpec::new(&TEXTS, "twice");
        let launch = |shape, args: &[Arg<'_>]| {
            // SAFETY: refused before anything runs.
            unsafe { gpu.launch(&kernel, shape, args) }
        };
        let right = [x.arg(), y.arg(), Arg::I32(1)];
        assert_says(launch(LaunchShape::line(1, 32), &right[..2]), &["twice", "[8, 8] bytes", "[8, 8, 4]"]);
        let wide = [x.arg(), y.arg(), Arg::Pointer(1)];
        assert_says(launch(LaunchShape::line(1, 32), &wide), &["[8, 8, 8] bytes"]);
        let words = ["launch of `twice` failed", "invalid argument"];
        assert_says(launch(LaunchShape::line(1, 1025), &right), &words);
        assert_says(launch(LaunchShape::grid(1, 65_536, 1, 32), &right), &words);
        let nowhere = KernelSpec::new(&TEXTS, "nowhere");
        // SAFETY: there is no such kernel.
        let outcome = unsafe { gpu.launch(&nowhere, LaunchShape::line(1, 32), &right) };
        assert_says(outcome, &["cuModuleGetFunction", "named symbol not found"]);
        let map = TensorMapShape {
            base: 1 << 20,
            dims: vec![64, 8],
            strides: vec![128],
            box_dims: vec![64, 8],
            swizzle_bytes: 128,
        };
        assert_says(TensorMap::encode(&gpu, &map), &["cuTensorMapEncodeTiled", "invalid argument"]);
        twice(&gpu, &x, &y).unwrap();
        assert_eq!(y.read().unwrap(), [2.0]);
    });
}

/// A recording that touches the host's memory is no recording; the device goes on. A driver would take such copies and repeat them
/// at every replay, so they never come to it.
#[test]
fn recordings_that_touch_the_hosts_memory_are_refused() {
    if compiler().is_none() {
        return;
    }
    in_child("recordings_that_touch_the_hosts_memory_are_refused", Library::Emulated(""), || {
        let gpu = open().unwrap();
        let (x, y) = (gpu.upload(&[1.0f32]).unwrap(), gpu.zeros::<f32>(1).unwrap());
        let recorded = gpu.record(|| twice(&gpu, &x, &y).and_then(|()| y.read().map(|_| ())));
        assert_says(recorded, &["reading", "launches are recorded"]);
        let recorded = gpu.record(|| twice(&gpu, &x, &y).and_then(|()| x.write(0, &[3.0])));
        assert_says(recorded, &["writing", "launches are recorded"]);
        let recorded = gpu.record(|| gpu.synchronize());
        assert_says(recorded, &["launches are recorded"]);
        // memory may come and go while launches are recorded, and a kernel may be loaded
        let recorded = gpu.record(|| {
            gpu.alloc::<f32>(10)?;
            twice(&gpu, &x, &y)
        });
        recorded.unwrap().replay().unwrap();
        assert_eq!(y.read().unwrap(), [2.0]);
        // nor does one that ends in a panic leave the device recording
        let panics = std::panic::AssertUnwindSafe(|| gpu.record(|| panic!("in the middle of a recording")).map(|_| ()));
        assert!(std::panic::catch_unwind(panics).is_err());
        gpu.synchronize().unwrap();
    });
}
