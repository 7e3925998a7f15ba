//! The run-time compiler: finds NVIDIA's NVRTC library, turns a [`KernelSpec`] into PTX and machine code.
//!
//! The library is opened when first asked for; a machine without one gets an error that says where it was looked for.

use std::collections::hash_map::DefaultHasher;
use std::ffi::{CString, c_char};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cudarc::nvrtc::{result, sys};

use crate::source::HEADERS;
use crate::{Arch, GpuError, KernelSpec};

/// The library's functions that are called here.
const CALLED: &[&str] = &[
    "nvrtcVersion",
    "nvrtcGetErrorString",
    "nvrtcCreateProgram",
    "nvrtcCompileProgram",
    "nvrtcDestroyProgram",
    "nvrtcGetProgramLogSize",
    "nvrtcGetProgramLog",
    "nvrtcGetPTXSize",
    "nvrtcGetPTX",
    "nvrtcGetCUBINSize",
    "nvrtcGetCUBIN",
];

/// What the assembler reports of one kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resources {
    /// 32-bit registers per thread.
    pub registers: u32,
    /// Bytes per thread stored to local memory because registers ran out.
    pub spill_store_bytes: u32,
    /// Bytes per thread read back.
    pub spill_load_bytes: u32,
    /// Bytes of stack per thread.
    pub stack_bytes: u32,
    /// Shared memory whose size the text fixes, bytes per block.
    pub static_shared_bytes: u32,
}

/// A compiled kernel.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// Assembly for the architecture.
    pub ptx: String,
    /// Machine code for it.
    pub cubin: Vec<u8>,
    /// Registers and memory it takes.
    pub resources: Resources,
    /// The compiler's and the assembler's words, warnings included.
    pub log: String,
}

impl Compiled {
    /// The files of `save`, if they are all there.
    fn load(stem: &Path) -> Option<Compiled> {
        let cubin = std::fs::read(stem.with_added_extension("cubin")).ok()?;
        let ptx = std::fs::read_to_string(stem.with_added_extension("ptx")).ok()?;
        let log = std::fs::read_to_string(stem.with_added_extension("log")).ok()?;
        Some(Compiled { ptx, cubin, resources: resources(&log), log })
    }

    /// Three files, each complete or absent.
    fn save(&self, stem: &Path) -> std::io::Result<()> {
        let parts = [("cubin", &self.cubin[..]), ("ptx", self.ptx.as_bytes()), ("log", self.log.as_bytes())];
        for (extension, bytes) in parts {
            let path = stem.with_added_extension(extension);
            let unique = format!("{}-{:?}", std::process::id(), std::thread::current().id());
            let beside = path.with_added_extension(unique);
            std::fs::write(&beside, bytes)?;
            std::fs::rename(&beside, &path)?;
        }
        Ok(())
    }
}

/// An opened compiler.
#[derive(Debug, Clone)]
pub struct Nvrtc {
    version: (i32, i32),
    cache: Option<PathBuf>,
}

impl Nvrtc {
    /// Opens the library: in `nvrtc` in a folder above the running binary (where `ci/nvrtc.sh` puts it: `target/nvrtc`), by
    /// the system's own search, or in the usual places of a CUDA toolkit. What it compiles is kept in that folder `nvrtc`,
    /// where there is one: the processes of a run then compile a kernel once.
    pub fn open() -> Result<Nvrtc, GpuError> {
        static OPENED: OnceLock<Result<(i32, i32), String>> = OnceLock::new();
        let version = OPENED.get_or_init(open_once).clone().map_err(|looked| GpuError::NoNvrtc { looked })?;
        let cache = above_the_binary().find(|folder| folder.is_dir()).map(|folder| folder.join("compiled"));
        Ok(Nvrtc { version, cache })
    }

    /// Keeps what it compiles in `folder`, under names that stand for everything it depends on.
    pub fn with_cache(self, folder: &Path) -> Nvrtc {
        Nvrtc { cache: Some(folder.to_path_buf()), ..self }
    }

    /// The library's version, `major.minor`.
    pub fn version(&self) -> String {
        format!("{}.{}", self.version.0, self.version.1)
    }

    /// Compiles `kernel` for `arch`, or takes it from the cache.
    pub fn compile(&self, kernel: &KernelSpec, arch: Arch) -> Result<Compiled, GpuError> {
        if arch < kernel.needs {
            return Err(GpuError::Architecture {
                what: format!("kernel {}", kernel.label()),
                needed: kernel.needs.to_string(),
                found: arch.to_string(),
            });
        }
        if self.version < arch.least_compiler() {
            let (major, minor) = arch.least_compiler();
            let needed = format!("{major}.{minor}");
            return Err(GpuError::OldNvrtc { found: self.version(), arch: arch.to_string(), needed });
        }
        let Some(folder) = &self.cache else { return compile(kernel, arch) };
        let stem = folder.join(format!("{}-{arch}-{:016x}", kernel.entry, self.fingerprint(kernel, arch)));
        if let Some(compiled) = Compiled::load(&stem) {
            return Ok(compiled);
        }
        let compiled = compile(kernel, arch)?;
        // a cache that cannot be written costs a compilation next time and nothing else
        let _ = std::fs::create_dir_all(folder).and_then(|()| compiled.save(&stem));
        Ok(compiled)
    }

    fn fingerprint(&self, kernel: &KernelSpec, arch: Arch) -> u64 {
        let mut hasher = DefaultHasher::new();
        (kernel.source.text, kernel.entry, &kernel.defines, arch, self.version).hash(&mut hasher);
        HEADERS.iter().for_each(|header| header.text.hash(&mut hasher));
        hasher.finish()
    }
}

/// Version of the library, or what was looked for.
fn open_once() -> Result<(i32, i32), String> {
    let mut looked = vec![];
    for folder in folders() {
        looked.push(folder.display().to_string());
        if preload(&folder) {
            break;
        }
    }
    // SAFETY: opens and closes a library by its usual names.
    if !unsafe { sys::is_culib_present() } {
        looked.push("libnvrtc.so of the system".into());
        return Err(looked.join(", "));
    }
    // SAFETY: the library is there; symbols are looked up and not called.
    let missing =
        CALLED.iter().find(|name| unsafe { sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()) }.is_err());
    if let Some(missing) = missing {
        looked.push(format!(
            "libnvrtc.so of the system, which has no function {missing} and is none of CUDA 11.2 or newer"
        ));
        return Err(looked.join(", "));
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is there, and both pointers are of integers that outlive the call.
    unsafe { sys::nvrtcVersion(&mut major, &mut minor) }.result().map_err(|e| e.to_string())?;
    Ok((major, minor))
}

/// `nvrtc` in each of the nearest folders above the running binary.
fn above_the_binary() -> impl Iterator<Item = PathBuf> {
    let binary = std::env::current_exe().unwrap_or_default();
    let above: Vec<PathBuf> = binary.ancestors().skip(1).take(3).map(|above| above.join("nvrtc")).collect();
    above.into_iter()
}

fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = above_the_binary().collect();
    folders.extend(["/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib"].map(PathBuf::from));
    folders
}

/// Opens the compiler in `folder` for the rest of the process: later searches by name then find it.
fn preload(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    // the part with the built-in functions first: the compiler itself asks for it by name alone
    files.sort_by_key(|path| (!is_named(path, "libnvrtc-builtins.so"), path.clone()));
    let mut opened = false;
    for path in files.iter().filter(|p| is_named(p, "libnvrtc-builtins.so") || is_named(p, "libnvrtc.so")) {
        // SAFETY: NVIDIA's library has no constructor with effects beyond itself.
        if let Ok(library) = unsafe { libloading::Library::new(path) } {
            opened |= is_named(path, "libnvrtc.so");
            std::mem::forget(library);
        }
    }
    opened
}

fn is_named(path: &Path, start: &str) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(start))
}

/// A program of the library, released when dropped.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: created by `program` and not released before.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

fn compile(kernel: &KernelSpec, arch: Arch) -> Result<Compiled, GpuError> {
    let failed = |log: String| GpuError::Compile { kernel: kernel.label(), arch: arch.to_string(), log };
    let text = |s: &str| CString::new(s).map_err(|_| failed("a zero byte in the text".into()));
    let (source, name) = (text(kernel.source.text)?, text(kernel.source.name)?);
    let headers = HEADERS.iter().map(|h| Ok((text(h.name)?, text(h.text)?))).collect::<Result<Vec<_>, GpuError>>()?;
    let names: Vec<*const c_char> = headers.iter().map(|(name, _)| name.as_ptr()).collect();
    let texts: Vec<*const c_char> = headers.iter().map(|(_, text)| text.as_ptr()).collect();
    let mut program = std::ptr::null_mut();
    // SAFETY: every pointer is of a C string that lives until the end of this function, counts included.
    unsafe {
        sys::nvrtcCreateProgram(
            &mut program,
            source.as_ptr(),
            name.as_ptr(),
            headers.len() as i32,
            texts.as_ptr(),
            names.as_ptr(),
        )
    }
    .result()
    .map_err(|e| failed(e.to_string()))?;
    let program = Program(program);
    let mut options = vec![
        format!("--gpu-architecture={arch}"),
        "--std=c++17".into(),
        "-default-device".into(),
        "--ptxas-options=-v".into(),
    ];
    options.extend(kernel.defines.iter().map(|(name, value)| format!("-D{name}={value}")));
    // SAFETY: the program was created above.
    let outcome = unsafe { result::compile_program(program.0, &options) };
    let log = log_of(&program);
    outcome.map_err(|e| failed(if log.is_empty() { e.to_string() } else { log.clone() }))?;
    // SAFETY: the program is compiled.
    let ptx = unsafe { result::get_ptx(program.0) }.map_err(|e| failed(e.to_string()))?;
    let cubin = cubin_of(&program).map_err(|e| failed(e.to_string()))?;
    let resources = resources(&log);
    Ok(Compiled { ptx: from_c(&ptx), cubin, resources, log })
}

fn log_of(program: &Program) -> String {
    // SAFETY: the program exists.
    unsafe { result::get_program_log(program.0) }.map(|log| from_c(&log)).unwrap_or_default()
}

fn cubin_of(program: &Program) -> Result<Vec<u8>, result::NvrtcError> {
    let mut size = 0;
    // SAFETY: the program is compiled; the second call writes as many bytes as the first announced.
    unsafe {
        sys::nvrtcGetCUBINSize(program.0, &mut size).result()?;
        let mut cubin = vec![0u8; size];
        sys::nvrtcGetCUBIN(program.0, cubin.as_mut_ptr().cast()).result()?;
        Ok(cubin)
    }
}

fn from_c(text: &[c_char]) -> String {
    let bytes: Vec<u8> = text.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads the assembler's report: `ptxas info : Used 32 registers, …, 4096 bytes smem`.
fn resources(log: &str) -> Resources {
    let before = |unit: &str| {
        let words = log.find(unit).map(|at| log[..at].trim_end())?;
        words.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    Resources {
        registers: before(" registers").unwrap_or(0),
        spill_store_bytes: before(" bytes spill stores").unwrap_or(0),
        spill_load_bytes: before(" bytes spill loads").unwrap_or(0),
        stack_bytes: before(" bytes stack frame").unwrap_or(0),
        static_shared_bytes: before(" bytes smem").unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_compiler_is_named() {
        static NOTHING: crate::Source = crate::Source { name: "nothing.cu", text: "" };
        let old = Nvrtc { version: (11, 4), cache: None };
        let kernel = KernelSpec::new(&NOTHING, "nothing");
        for (arch, needed) in [(Arch::Sm89, "11.8"), (Arch::Sm90a, "12.0")] {
            let error = old.compile(&kernel, arch).unwrap_err().to_string();
            assert!(error.contains("NVRTC 11.4") && error.contains(arch.name()) && error.contains(needed), "{error}");
        }
    }

    #[test]
    fn reads_the_assemblers_report() {
        let log = "ptxas info    : 0 bytes gmem\nptxas info    : Function properties for k\n    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\nptxas info    : Used 168 registers, used 2 barriers, 49152 bytes smem, 400 bytes cmem[0]\n";
        let expected = Resources {
            registers: 168,
            spill_store_bytes: 8,
            spill_load_bytes: 12,
            stack_bytes: 16,
            static_shared_bytes: 49152,
        };
        assert_eq!(resources(log), expected);
    }
}
