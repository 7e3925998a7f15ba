//! What decides a kernel's speed, read in its machine code: the right instructions are there, and in the right order. Needs the compiler
//! and the disassembler (`ci/nvrtc.sh` fetches both) and no GPU.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use cuda_kernels::{Arch, KernelSpec, all_kernels};

use crate::compiler;

/// The kernels that are timed, in one number format each.
const WATCHED: &[(&str, Arch)] = &[
    ("gemm_mma[NUMBER=Bf16,STAGES=4]", Arch::Sm80),
    ("gemm_wgmma[NUMBER=Bf16,STAGES=4]", Arch::Sm90a),
    ("gemm_specialised[NUMBER=Bf16,PERSISTENT=0,CLUSTER=1]", Arch::Sm90a),
    ("gemm_specialised[NUMBER=Bf16,PERSISTENT=1,CLUSTER=1]", Arch::Sm90a),
    ("gemm_specialised[NUMBER=Bf16,PERSISTENT=1,CLUSTER=2]", Arch::Sm90a),
    ("attention_mma[DIM=128,NUMBER=Bf16]", Arch::Sm80),
    ("attention_ldmatrix_swizzle[DIM=128,NUMBER=Bf16]", Arch::Sm80),
    ("attention_pipelined[DIM=128,NUMBER=Bf16]", Arch::Sm80),
    ("attention_wgmma_tma[DIM=128,NUMBER=Bf16]", Arch::Sm90a),
    ("attention_specialised[DIM=128,NUMBER=Bf16,PING_PONG=0,OVERLAP=0]", Arch::Sm90a),
    ("attention_specialised[DIM=128,NUMBER=Bf16,PING_PONG=1,OVERLAP=1]", Arch::Sm90a),
    ("attention_specialised[DIM=64,NUMBER=Half,PING_PONG=1,OVERLAP=1]", Arch::Sm90a),
    ("attention_specialised[DIM=128,NUMBER=Bf16,PING_PONG=1,OVERLAP=1,BACKGROUND=1]", Arch::Sm90a),
    ("attention_packed[NUMBER=Half,DIM=128,ROWS=16]", Arch::Sm90a),
    ("attention_packed[NUMBER=Half,DIM=128,ROWS=128]", Arch::Sm80),
    ("tile_gemm[ROW_BLOCKS=8,SPLIT=0,STAGES=3,WEIGHTS=HalfTiles]", Arch::Sm90a),
    ("tile_gemm[ROW_BLOCKS=16,SPLIT=0,STAGES=3,WEIGHTS=HalfTiles]", Arch::Sm90a),
    ("tile_gemm[ROW_BLOCKS=8,SPLIT=0,STAGES=4,WEIGHTS=Int4,GROUP=128]", Arch::Sm90a),
    ("tile_gemm[ROW_BLOCKS=8,SPLIT=0,STAGES=4,WEIGHTS=Int8]", Arch::Sm90a),
    ("tile_gemv[ROW_BLOCKS=1,OUTPUT_BLOCKS=1,DIRECT=1,AHEAD=2,WEIGHTS=HalfTiles]", Arch::Sm90a),
    ("tile_gemv[ROW_BLOCKS=1,OUTPUT_BLOCKS=1,DIRECT=0,AHEAD=4,WEIGHTS=Int4,GROUP=128]", Arch::Sm90a),
    ("tile_gemv[ROW_BLOCKS=1,OUTPUT_BLOCKS=1,DIRECT=1,AHEAD=4,WEIGHTS=Int4,GROUP=128]", Arch::Sm90a),
    ("tile_gemv[ROW_BLOCKS=1,OUTPUT_BLOCKS=2,DIRECT=1,AHEAD=4,WEIGHTS=Int4,GROUP=128]", Arch::Sm90a),
    ("tile_gemv[ROW_BLOCKS=2,OUTPUT_BLOCKS=2,DIRECT=0,AHEAD=4,WEIGHTS=Int4,GROUP=128]", Arch::Sm90a),
    ("tile_gemv[ROW_BLOCKS=2,OUTPUT_BLOCKS=2,DIRECT=0,AHEAD=1,WEIGHTS=HalfTiles]", Arch::Sm90a),
    ("tile_gemv[ROW_BLOCKS=1,OUTPUT_BLOCKS=1,DIRECT=0,AHEAD=4,WEIGHTS=Int8]", Arch::Sm90a),
    ("int8_wgmma", Arch::Sm90a),
    ("warp_rows[NUMBER=F16,ROWS=1,OUTPUTS=4,VECTOR=8]", Arch::Sm90a),
    ("int4_warp", Arch::Sm90a),
];

/// Columns of the table: opcodes that start so, and not like a column before.
const CLASSES: [&str; 16] = [
    "HGMMA",
    "IGMMA",
    "HMMA",
    "IMMA",
    "WARPGROUP.DEPBAR",
    "UTMALDG",
    "UTMASTG",
    "LDGSTS",
    "LDG.128",
    "LDG.",
    "LDSM",
    "STSM",
    "MUFU.EX2",
    "I2F",
    "LDL",
    "STL",
];

/// What must hold, of the kernels whose label starts so, and why it decides their speed.
struct Rule {
    kernels: &'static [&'static str],
    holds: fn(&Sass) -> Result<(), String>,
    reason: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        kernels: &[""],
        holds: |sass| sass.none("LDL").and(sass.none("STL")),
        reason: "registers that go through local memory cost a round trip to L1 in the inner loop",
    },
    Rule {
        kernels: &["gemm_mma", "attention_mma", "attention_ldmatrix", "attention_pipelined"],
        holds: |sass| sass.some("HMMA.16816.F32.BF16"),
        reason: "m16n8k16 is the largest product of mma.sync; smaller ones halve its rate",
    },
    Rule {
        kernels: &["gemm_wgmma", "attention_wgmma_tma", "attention_specialised"],
        holds: |sass| sass.some("HGMMA.64x128x16.F32"),
        reason: "with 64 columns a warpgroup's product is bound by its reads of shared memory",
    },
    Rule {
        kernels: &["gemm_specialised"],
        holds: |sass| sass.some("HGMMA.64x256x16.F32"),
        reason: "256 columns read the fewest bytes of shared memory per product",
    },
    Rule {
        kernels: &["gemm_wgmma", "gemm_specialised", "int8_wgmma", "attention_wgmma_tma", "attention_specialised"],
        holds: |sass| sass.batches(4),
        reason: "a wait after every product, which is how the assembler serialises what it does not trust, leaves the tensor cores idle",
    },
    Rule {
        kernels: &["gemm_specialised", "int8_wgmma"],
        holds: |sass| sass.some("WARPGROUP.DEPBAR.LE gsb0, 0x1"),
        reason: "a stage is handed back while the products of the next run",
    },
    Rule {
        kernels: &[
            "attention_specialised[DIM=128,NUMBER=Bf16,PING_PONG=1,OVERLAP=1",
            "attention_specialised[DIM=64,NUMBER=Half,PING_PONG=1,OVERLAP=1",
        ],
        holds: |sass| sass.between_waits("MUFU.EX2", 64),
        reason: "the exponentials of a step (128 columns, 64 a thread) hide behind the product with V that is still under way; the \
                 assembler likes to move that product's wait above them",
    },
    Rule {
        kernels: &["gemm_wgmma", "gemm_specialised", "int8_wgmma", "attention_wgmma_tma", "attention_specialised"],
        holds: |sass| sass.some("UTMALDG").and(sass.none("LDGSTS")),
        reason: "tiles come by the tensor memory accelerator, which takes one thread and no registers",
    },
    Rule {
        kernels: &[
            "gemm_specialised[NUMBER=Bf16,PERSISTENT=1",
            "attention_specialised[DIM=128,NUMBER=Bf16,PING_PONG=1,OVERLAP=1,BACKGROUND=1",
        ],
        holds: |sass| sass.some("UTMASTG").and(sass.some("STSM")),
        reason: "results leave in the background, in whole lines",
    },
    Rule {
        kernels: &["gemm_specialised[NUMBER=Bf16,PERSISTENT=1,CLUSTER=2"],
        holds: |sass| sass.some("UTMALDG.2D.MULTICAST"),
        reason: "one read of L2 fills the shared memory of both blocks",
    },
    Rule {
        kernels: &["gemm_mma", "attention_pipelined", "attention_packed", "tile_gemm"],
        holds: |sass| sass.some("LDGSTS.E.BYPASS.128"),
        reason: "tiles come 16 bytes a lane past registers and L1, stages ahead of their use",
    },
    Rule {
        kernels: &["gemm_mma", "attention_ldmatrix", "attention_pipelined", "attention_packed"],
        holds: |sass| sass.some("LDSM.16.M88.4"),
        reason: "four 8 x 8 tiles an instruction: shared memory is what mma.sync waits for",
    },
    Rule {
        kernels: &["tile_gemv", "warp_rows", "int4_warp"],
        holds: |sass| sass.some("LDG.128"),
        reason: "weights come 16 bytes a lane: narrower loads do not keep enough bytes under way",
    },
    Rule {
        kernels: &[
            "tile_gemv[ROW_BLOCKS=1,OUTPUT_BLOCKS=2,DIRECT=1",
            "tile_gemv[ROW_BLOCKS=2,OUTPUT_BLOCKS=2,DIRECT=0,AHEAD=4",
            "tile_gemv[ROW_BLOCKS=1,OUTPUT_BLOCKS=1,DIRECT=0,AHEAD=4,WEIGHTS=Int4",
            "tile_gemv[ROW_BLOCKS=1,OUTPUT_BLOCKS=1,DIRECT=1,AHEAD=4,WEIGHTS=Int4",
        ],
        holds: |sass| sass.some("HMMA.16816.F32").and(sass.none("I2F")).and(sass.per_weight(3.5)),
        reason: "codes become numbers by bit operations (LOP3, HFMA2): conversions go at a quarter of their rate, and at 4.3 TB/s a \
                 multiprocessor has 3.5 instructions of a lane for each weight of 4 bits",
    },
    Rule {
        kernels: &["tile_gemm[ROW_BLOCKS=8,SPLIT=0,STAGES=4,WEIGHTS=Int4"],
        holds: |sass| sass.some("HMMA.16816.F32").and(sass.none("I2F")),
        reason: "codes become numbers by bit operations",
    },
    Rule {
        kernels: &["int8_wgmma"],
        holds: |sass| sass.some("IGMMA.64x256x32.S8.S8"),
        reason: "256 columns read the fewest bytes of shared memory per product, 32 of k at twice the rate of 16-bit numbers",
    },
    Rule {
        kernels: &[
            "tile_gemm[ROW_BLOCKS=8,SPLIT=0,STAGES=4,WEIGHTS=Int8",
            "tile_gemv[ROW_BLOCKS=1,OUTPUT_BLOCKS=1,DIRECT=0,AHEAD=4,WEIGHTS=Int8",
        ],
        holds: |sass| sass.some("IMMA.16832.S8.S8"),
        reason: "m16n8k32 on bytes: twice the rate of 16-bit numbers",
    },
];

/// Machine code of one kernel.
struct Sass {
    /// Opcode and operands, without predicates.
    lines: Vec<String>,
    /// Label to the line it stands before.
    labels: HashMap<String, usize>,
    /// Products by each weight.
    row_blocks: usize,
}

impl Sass {
    fn parse(text: &str, row_blocks: usize) -> Sass {
        let mut sass = Sass { lines: vec![], labels: HashMap::new(), row_blocks };
        for line in text.lines().map(str::trim) {
            if let Some(label) = line.strip_suffix(':') {
                sass.labels.insert(label.to_string(), sass.lines.len());
            } else if let Some((_, rest)) = line.strip_prefix("/*").and_then(|rest| rest.split_once("*/")) {
                let words = rest.trim().trim_end_matches(';').trim();
                let words =
                    if words.starts_with('@') { words.split_once(' ').map_or("", |(_, rest)| rest) } else { words };
                if !words.is_empty() {
                    sass.lines.push(widths_first(words.trim()));
                }
            }
        }
        sass
    }

    fn count(&self, start: &str) -> usize {
        self.lines.iter().filter(|line| line.starts_with(start)).count()
    }

    fn some(&self, start: &str) -> Result<(), String> {
        if self.count(start) > 0 { Ok(()) } else { Err(format!("no {start}")) }
    }

    fn none(&self, start: &str) -> Result<(), String> {
        match self.count(start) {
            0 => Ok(()),
            count => Err(format!("{count} {start}")),
        }
    }

    /// Between two waits for products stand none or at least `least`.
    fn batches(&self, least: usize) -> Result<(), String> {
        let mut issued = 0;
        for line in &self.lines {
            if line.starts_with("HGMMA") || line.starts_with("IGMMA") {
                issued += 1;
            } else if line.starts_with("WARPGROUP.DEPBAR") {
                if (1..least).contains(&issued) {
                    return Err(format!("a wait after {issued} products"));
                }
                issued = 0;
            }
        }
        if issued == 0 { Ok(()) } else { Err(format!("{issued} products that nothing waits for")) }
    }

    /// After each wait that leaves products running, at least `least` instructions of a kind stand before the wait for all.
    fn between_waits(&self, start: &str, least: usize) -> Result<(), String> {
        let (mut seen, mut regions) = (None, 0);
        for line in &self.lines {
            if line.starts_with("WARPGROUP.DEPBAR.LE gsb0, 0x1") {
                seen = Some(0);
            } else if line.starts_with("WARPGROUP.DEPBAR.LE gsb0, 0x0") {
                match seen.take() {
                    Some(count) if count < least => return Err(format!("{count} {start} between the waits")),
                    region => regions += usize::from(region.is_some()),
                }
            } else if line.starts_with(start) {
                seen = seen.map(|count| count + 1);
            }
        }
        if regions > 0 { Ok(()) } else { Err("no wait that leaves products running".into()) }
    }

    /// Instructions of the innermost loop with products, times the lanes, by the 16 x 16 weights of each product of a row block.
    fn lane_instructions_per_weight(&self) -> Option<f64> {
        let products =
            |from: usize, to: usize| self.lines[from..to].iter().filter(|line| line.starts_with("HMMA")).count();
        let back = self.lines.iter().enumerate().filter(|(_, line)| line.starts_with("BRA"));
        let loops = back.filter_map(|(at, line)| {
            let label = line.split_once("`(")?.1.split(')').next()?;
            let start = *self.labels.get(label)?;
            let inside = if start < at { products(start, at) } else { 0 };
            (inside > 0).then(|| (at + 1 - start, inside))
        });
        loops.min().map(|(length, products)| 32.0 * (length * self.row_blocks) as f64 / (256 * products) as f64)
    }

    fn per_weight(&self, most: f64) -> Result<(), String> {
        match self.lane_instructions_per_weight() {
            Some(found) if found <= most => Ok(()),
            Some(found) => Err(format!("{found:.2} instructions of a lane per weight, {most} are affordable")),
            None => Err("no loop with products".into()),
        }
    }
}

/// `LDG.E.128.CONSTANT` becomes `LDG.128.E.CONSTANT`: wide loads have one beginning.
fn widths_first(words: &str) -> String {
    let (opcode, operands) = words.split_once(' ').unwrap_or((words, ""));
    match opcode.strip_prefix("LDG.").filter(|rest| rest.split('.').any(|part| part == "128")) {
        Some(rest) => format!("LDG.128.{} {operands}", rest.replace(".128", "")),
        None => words.to_string(),
    }
}

/// Where `ci/nvrtc.sh` puts it, or the system's.
fn disassembler() -> Option<PathBuf> {
    let fetched = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("nvrtc").join("nvdisasm");
    let runs =
        |path: &PathBuf| Command::new(path).arg("--version").output().is_ok_and(|output| output.status.success());
    let found = [fetched, PathBuf::from("nvdisasm")].into_iter().find(runs);
    if found.is_none() {
        eprintln!("skipped: no nvdisasm; ci/nvrtc.sh fetches it");
    }
    found
}

fn disassemble(program: &Path, kernel: &KernelSpec, arch: Arch, cubin: &[u8]) -> Sass {
    let label: String = kernel.label().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sass-{label}-{arch}-{}.cubin", std::process::id()));
    std::fs::write(&file, cubin).unwrap();
    let output = Command::new(program).arg("-c").arg(&file).output().unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(output.status.success(), "{label}: {}", String::from_utf8_lossy(&output.stderr));
    let row_blocks = if kernel.label().contains("ROW_BLOCKS=2") { 2 } else { 1 };
    Sass::parse(&String::from_utf8_lossy(&output.stdout), row_blocks)
}

#[test]
fn machine_code_has_what_decides_its_speed() {
    let (Some(nvrtc), Some(program)) = (compiler(), disassembler()) else { return };
    let all = all_kernels();
    let work: Vec<(&KernelSpec, Arch)> = WATCHED
        .iter()
        .map(|(label, arch)| {
            let kernel = all.iter().find(|kernel| kernel.label() == *label);
            (kernel.unwrap_or_else(|| panic!("no kernel {label}")), *arch)
        })
        .collect();
    let (work, codes) = (Mutex::new(work.into_iter()), Mutex::new(BTreeMap::new()));
    let next = || work.lock().unwrap().next();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                while let Some((kernel, arch)) = next() {
                    let compiled = nvrtc.compile(kernel, arch).unwrap_or_else(|e| panic!("{e}"));
                    let sass = disassemble(&program, kernel, arch, &compiled.cubin);
                    codes.lock().unwrap().insert((kernel.label(), arch), sass);
                }
            });
        }
    });
    let codes = codes.into_inner().unwrap();
    let mut broken = vec![];
    for rule in RULES {
        let concerned = |label: &str| rule.kernels.iter().any(|start| label.starts_with(start));
        let of_rule: Vec<_> = codes.iter().filter(|((label, _), _)| concerned(label)).collect();
        assert!(!of_rule.is_empty(), "no kernel starts with {:?}", rule.kernels);
        for ((label, arch), sass) in of_rule {
            if let Err(found) = (rule.holds)(sass) {
                broken.push(format!("{label} for {arch}: {found}. Why it matters: {}", rule.reason));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    if nvrtc.version() == "13.0" {
        insta::assert_snapshot!("machine_code", table(&codes));
    }
}

fn table(codes: &BTreeMap<(String, Arch), Sass>) -> String {
    let mut text = String::new();
    for ((label, arch), sass) in codes {
        text += &format!("{label} {arch}: {} instructions", sass.lines.len());
        let mut counted = 0;
        for class in CLASSES {
            let count = sass.count(class) - if class == "LDG." { sass.count("LDG.128") } else { 0 };
            counted += count;
            if count > 0 {
                text += &format!(", {} {count}", class.trim_end_matches('.'));
            }
        }
        assert!(counted > 0, "{label}: no instruction was recognised");
        if let Some(instructions) = sass.lane_instructions_per_weight().filter(|_| label.contains("tile_gemv")) {
            text += &format!(", {instructions:.2} instructions of a lane per weight");
        }
        text += "\n";
    }
    text
}

#[test]
fn machine_code_is_read_as_it_is_printed() {
    let text = "\t.section\t.text.k\n.L_x_1:\n        /*0010*/              @!P1 LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;\n\
                        /*0020*/                   HMMA.16816.F32 R8, R4, R6, R8 ;\n\
                        /*0030*/               @P0 BRA `(.L_x_1) ;\n\
                        /*0040*/                   HGMMA.64x128x16.F32 R24, gdesc[UR20], R24, gsb0 ;\n\
                        /*0050*/                   WARPGROUP.DEPBAR.LE gsb0, 0x1 ;\n\
                        /*0060*/                   MUFU.EX2 R3, R3 ;\n\
                        /*0070*/                   WARPGROUP.DEPBAR.LE gsb0, 0x0 ;\n";
    let sass = Sass::parse(text, 1);
    assert_eq!((sass.lines.len(), sass.count("LDG.128"), sass.count("HMMA")), (7, 1, 1));
    assert_eq!(sass.lane_instructions_per_weight(), Some(3.0 * 32.0 / 256.0));
    assert!(sass.batches(1).is_ok() && sass.batches(2).is_err());
    assert!(sass.between_waits("MUFU.EX2", 1).is_ok() && sass.between_waits("MUFU.EX2", 2).is_err());
}
