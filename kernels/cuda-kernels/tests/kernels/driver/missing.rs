//! What a machine may lack: a driver, a whole or a new one, a device, a compiler.

use super::*;

#[test]
fn no_driver() {
    if compiler().is_none() {
        return;
    }
    in_child("missing::no_driver", Library::None, || match open() {
        Ok(gpu) => eprintln!("skipped: this machine has {}", gpu.name()),
        failed => assert_says(failed, &["no CUDA device", "no NVIDIA driver (libcuda.so)"]),
    });
}

/// Looking at the device is all that planning does, and takes nothing of it.
#[test]
fn libraries_that_are_no_whole_driver() {
    in_child("missing::libraries_that_are_no_whole_driver", Library::Foreign, || {
        assert_says(Gpu::probe(0), &["no function cuInit", "12.0 or newer", "stub"]);
    });
}

#[test]
fn a_driver_without_tensor_maps() {
    in_child("missing::a_driver_without_tensor_maps", Library::Lacking("cuTensorMapEncodeTiled"), || {
        assert_says(Gpu::probe(0), &["no function cuTensorMapEncodeTiled", "update"]);
    });
}

/// CUDA 12.0 has one way to ask for a time; the second, which the bindings prefer, came with 12.8. What 12.4 brought is not needed.
#[test]
fn functions_of_later_drivers_are_not_needed() {
    if compiler().is_none() {
        return;
    }
    let check = || {
        let gpu = open().unwrap();
        let start = gpu.moment().unwrap();
        let (x, y) = (gpu.upload(&[1.0f32]).unwrap(), gpu.zeros::<f32>(1).unwrap());
        twice(&gpu, &x, &y).unwrap();
        assert!(start.milliseconds_until(&gpu.moment().unwrap()).unwrap().is_some());
        assert_eq!(y.read().unwrap(), [2.0]);
    };
    in_child("missing::functions_of_later_drivers_are_not_needed", Library::Lacking("cuEventElapsedTime_v2"), check);
}

#[test]
fn sizes_of_parameters_are_optional() {
    if compiler().is_none() {
        return;
    }
    in_child("missing::sizes_of_parameters_are_optional", Library::Lacking("cuFuncGetParamInfo"), || {
        let gpu = open().unwrap();
        let (x, y) = (gpu.upload(&[1.0f32]).unwrap(), gpu.zeros::<f32>(1).unwrap());
        twice(&gpu, &x, &y).unwrap();
        assert_eq!(y.read().unwrap(), [2.0]);
    });
}

#[test]
fn an_old_driver() {
    in_child("missing::an_old_driver", Library::Emulated("version=11080"), || {
        assert_says(Gpu::probe(0), &["supports CUDA 11.8", "needs 12.0 or newer", "update the driver"]);
    });
}

#[test]
fn no_device() {
    in_child("missing::no_device", Library::Emulated("devices=0"), || {
        assert_says(Gpu::probe(0), &["no CUDA device", "no CUDA-capable device is detected"]);
    });
}

#[test]
fn a_device_that_is_not_there() {
    in_child("missing::a_device_that_is_not_there", Library::Emulated("devices=2"), || {
        assert!(Gpu::probe(1).is_ok());
        assert_says(Gpu::probe(2), &["device 2 asked for, 2 present, counted from 0"]);
        assert_eq!(living(), [0; 6]);
    });
}

#[test]
fn an_old_device() {
    in_child("missing::an_old_device", Library::Emulated("capability=7.5"), || {
        assert_says(Gpu::probe(0), &["needs compute capability 8.0 (Ampere) or newer", "this device is sm_75"]);
    });
}

/// A program that has no compiler in a folder above it.
#[test]
fn no_compiler() {
    let name = "driver::missing::no_compiler";
    if is_child() {
        match Nvrtc::open() {
            Ok(nvrtc) => eprintln!("skipped: this machine has NVRTC {}", nvrtc.version()),
            failed => assert_says(failed, &["no NVRTC library", "looked for", "nvrtc", "ci/nvrtc.sh"]),
        }
        return;
    }
    let apart = tempfile::tempdir().unwrap();
    let program = apart.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let Some(mut child) = child(&program, name, &Library::None, &["--exact", name, "--nocapture"]) else { return };
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", shown(&output));
}
