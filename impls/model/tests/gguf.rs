//! GGUF files are untrusted: what is damaged is named, and nothing panics or allocates by a header's word. Blocks are compared
//! with what the format's own Python package makes of them (`data/gguf-blocks.safetensors`, see the engine's `make_gguf.py`).

use std::borrow::Cow;
use std::path::Path;

use model::Architecture;
use model::checkpoint::gguf::{Block, Types, from_bytes, open_gguf, write};
use model::checkpoint::{Bytes, CheckpointError, RandomTensors, SafeTensorsFile, Tensor, TensorData, Tensors};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

fn tiny(family: &str) -> Architecture {
    let llama = r#"{"model_type":"llama","vocab_size":64,"hidden_size":64,"intermediate_size":96,"num_hidden_layers":2,
        "num_attention_heads":4,"num_key_value_heads":2,"max_position_embeddings":128,"rms_norm_eps":1e-5,"rope_theta":50000.0}"#;
    let gpt2 =
        r#"{"model_type":"gpt2","vocab_size":64,"n_embd":64,"n_layer":2,"n_head":4,"n_inner":96,"n_positions":128}"#;
    let gpt_neox = r#"{"model_type":"gpt_neox","vocab_size":64,"hidden_size":64,"intermediate_size":96,"num_hidden_layers":2,
        "num_attention_heads":4,"max_position_embeddings":128,"rotary_pct":0.5}"#;
    let mixtral = r#"{"model_type":"mixtral","vocab_size":64,"hidden_size":64,"intermediate_size":32,"num_hidden_layers":2,
        "num_attention_heads":4,"num_key_value_heads":2,"num_local_experts":3,"num_experts_per_tok":2,"max_position_embeddings":128,
        "sliding_window":null,"rms_norm_eps":1e-5}"#;
    let gemma = r#"{"model_type":"gemma","vocab_size":64,"hidden_size":64,"intermediate_size":96,"num_hidden_layers":1,
        "num_attention_heads":4,"num_key_value_heads":1,"head_dim":16,"max_position_embeddings":128}"#;
    let llama3 = r#"{"model_type":"llama","vocab_size":64,"hidden_size":64,"intermediate_size":96,"num_hidden_layers":1,
        "num_attention_heads":4,"max_position_embeddings":512,"rms_norm_eps":1e-5,"tie_word_embeddings":true,"rope_parameters":{
        "rope_type":"llama3","rope_theta":500000.0,"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
        "original_max_position_embeddings":64}}"#;
    let text = match family {
        "gpt2" => gpt2,
        "gpt_neox" => gpt_neox,
        "mixtral" => mixtral,
        "gemma" => gemma,
        "llama3" => llama3,
        _ => llama,
    };
    Architecture::from_json(Path::new("config.json"), text).unwrap()
}

/// A small file of ours, as bytes.
fn written(a: &Architecture, types: Types) -> Vec<u8> {
    let (tensors, mut bytes) = (RandomTensors::new(a.clone(), 3), vec![]);
    write(&mut bytes, "m", (a, &tensors), None, types, &mut |_, _| {}).unwrap();
    bytes
}

fn parse(bytes: Vec<u8>) -> Result<model::checkpoint::gguf::Gguf, CheckpointError> {
    from_bytes(Path::new("m.gguf"), Bytes::Static(bytes.leak()))
}

#[test]
fn blocks_are_decoded_as_the_reference_does() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/gguf-blocks.safetensors");
    let stored = SafeTensorsFile::new(&file, Bytes::map(&file).unwrap()).unwrap();
    let blocks = [
        Block::Q4_0,
        Block::Q4_1,
        Block::Q5_0,
        Block::Q5_1,
        Block::Q8_0,
        Block::Q2K,
        Block::Q3K,
        Block::Q4K,
        Block::Q5K,
        Block::Q6K,
        Block::Iq4Nl,
        Block::Iq4Xs,
        Block::Iq2Xxs,
        Block::Iq2Xs,
        Block::Iq2S,
        Block::Iq3Xxs,
        Block::Iq3S,
        Block::Iq1S,
        Block::Iq1M,
        Block::Tq1,
        Block::Tq2,
        Block::Mxfp4,
        Block::Nvfp4,
    ];
    for block in blocks {
        let values = |part: &str| stored.get(&format!("{}.{part}", block.name())).unwrap().data.to_f32();
        let bytes: Vec<u8> = values("bytes").iter().map(|b| *b as u8).collect();
        let want = values("values");
        let mut got = vec![0.0; want.len()];
        block.decode(&bytes, &mut got);
        assert!(bytes.len() == 3 * block.bytes() && got == want, "{}", block.name());
    }
}

#[test]
fn blocks_are_encoded_as_the_reference_does() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/gguf-blocks.safetensors");
    let stored = SafeTensorsFile::new(&file, Bytes::map(&file).unwrap()).unwrap();
    let source = stored.get("source").unwrap().data.to_f32();
    for block in [Block::Q4_0, Block::Q4_1, Block::Q8_0, Block::F16, Block::Bf16] {
        let want: Vec<u8> =
            stored.get(&format!("{}.encoded", block.name())).unwrap().data.to_f32().iter().map(|b| *b as u8).collect();
        let mut got = vec![];
        block.encode(&source, &mut got);
        assert!(got == want, "{}", block.name());
    }
}

#[test]
fn what_is_written_is_read_back() {
    for family in ["llama", "gpt2", "gpt_neox", "mixtral", "gemma"] {
        let a = tiny(family);
        let original = RandomTensors::new(a.clone(), 3);
        let read = parse(written(&a, Types::all(Block::F32))).unwrap();
        assert_eq!(read.architecture, Architecture { names: read.architecture.names, ..a.clone() }, "{family}");
        if family == "gpt2" || family == "gpt_neox" {
            // stored another way round; the engine's tests compare what they compute
            continue;
        }
        for (name, shape) in model::names::tensors(&a) {
            let tensor = read.tensors.get(&name).unwrap();
            assert_eq!(
                (&tensor.shape, tensor.data.to_f32()),
                (&shape, original.get(&name).unwrap().data.to_f32()),
                "{name}"
            );
        }
    }
}

#[test]
fn rotary_divisors_survive() {
    let a = tiny("llama3");
    let read = parse(written(&a, Types::all(Block::F16))).unwrap().architecture;
    let divisors = |a: &Architecture| model::RopeTable::new(a.rope().unwrap()).divisors();
    let (want, got) = (divisors(&a), divisors(&read));
    assert!(want.iter().zip(&got).all(|(w, g)| (w - g).abs() <= 1e-6 * w) && want[0] == 1.0, "{want:?} {got:?}");
    assert!(
        *want.last().unwrap() > 7.0 && model::RopeTable::new(read.rope().unwrap()).length_matters_beyond().is_none()
    );
}

#[test]
fn codes_stand_for_the_values() {
    for (block, family) in
        [(Block::Q4_0, "llama"), (Block::Q8_0, "llama"), (Block::Q4_1, "llama"), (Block::Q4_0, "mixtral")]
    {
        let a = tiny(family);
        let read = parse(written(&a, Types::all(block))).unwrap();
        let mut compared = 0;
        for (name, shape) in model::names::tensors(&a) {
            let codes = read.tensors.codes(&name).unwrap();
            assert_eq!(codes.is_some(), shape.len() == 2 && !name.ends_with("block_sparse_moe.gate.weight"), "{name}");
            if let Some(codes) = codes {
                assert!(codes.is_exact_in_f16());
                assert_eq!(codes.dequantise(), read.tensors.get(&name).unwrap().data.to_f32(), "{name}");
                compared += 1;
            }
        }
        assert!(compared > 10);
    }
}

#[test]
fn every_truncation_is_refused() {
    let bytes = written(&tiny("llama"), Types::all(Block::Q8_0));
    for length in (0..3000.min(bytes.len())).chain((3000..bytes.len()).step_by(997)) {
        let error =
            parse(bytes[..length].to_vec()).err().unwrap_or_else(|| panic!("accepted {length} bytes")).to_string();
        assert!(error.contains("m.gguf"), "{error}");
    }
    assert!(parse(bytes).is_ok());
}

#[test]
fn version_two_is_laid_out_alike() {
    let mut bytes = written(&tiny("llama"), Types::all(Block::F16));
    bytes[4] = 2;
    assert_eq!(parse(bytes).unwrap().architecture, tiny("llama"));
}

#[test]
fn corrupted_files_never_panic() {
    let good = written(&tiny("mixtral"), Types::all(Block::Q4_0));
    let header = good.len().min(4000);
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for _ in 0..4000 {
        let mut bytes = good[..].to_vec();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..header);
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, rng.random_range(0..=255)][rng.random_range(0..6)];
        }
        // leaking 4000 files is nothing; an Ok must be usable
        if let Ok(read) = parse(bytes) {
            let names: Vec<String> =
                ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"].map(String::from).into();
            names.iter().for_each(|name| drop(read.tensors.get(name)));
        }
    }
}

/// A header with these keys (name, kind, bytes of the value) and nothing else.
fn keys(all: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend(0u64.to_le_bytes());
    out.extend((all.len() as u64).to_le_bytes());
    for (name, kind, value) in all {
        out.extend((name.len() as u64).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend(kind.to_le_bytes());
        out.extend(*value);
    }
    out
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

#[test]
fn errors_name_what_is_wrong() {
    let llama = text("llama");
    let kind = ("general.architecture", 8, &llama[..]);
    let huge_array = [&4u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat();
    let nested: Vec<u8> = (0..9).flat_map(|_| [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat()).collect();
    let mamba = text("mamba");
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"GGML\x03\0\0\0".to_vec(), "does not begin with `GGUF`"),
        (b"GGUF\x01\0\0\0".to_vec(), "version 1"),
        (b"GGUF\0\0\0\x03".to_vec(), "big-endian"),
        (
            [b"GGUF\x03\0\0\0".to_vec(), u64::MAX.to_le_bytes().to_vec(), vec![0; 8]].concat(),
            "more than the file can hold",
        ),
        (keys(&[("a", 4, &[0; 4]), ("a", 4, &[0; 4])]), "`a` is there twice"),
        (keys(&[("a", 99, &[0; 4])]), "unknown kind 99"),
        (keys(&[("a", 9, &huge_array)]), "key `a`"),
        (keys(&[("a", 9, &nested)]), "nests arrays deeper"),
        (keys(&[("general.alignment", 4, &[3, 0, 0, 0])]), "general.alignment"),
        (keys(&[("a", 4, &[0; 4])]), "general.architecture"),
        (keys(&[("general.architecture", 8, &mamba)]), "mamba"),
        (keys(&[kind]), "llama.block_count"),
        (keys(&[kind, ("llama.block_count", 4, &[2, 0, 0, 0])]), "llama.block_count"),
    ];
    for (bytes, word) in cases {
        let error = parse(bytes).err().unwrap().to_string();
        assert!(error.contains("m.gguf") && error.contains(word), "{word}: {error}");
    }
}

#[test]
fn a_type_that_is_not_read_is_refused_by_name() {
    let mut bytes = written(&tiny("llama"), Types::all(Block::F32));
    let name = b"blk.0.ffn_up.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len() + 4 + 16;
    bytes[at] = 15;
    let error = parse(bytes).err().unwrap().to_string();
    assert!(error.contains("blk.0.ffn_up.weight") && error.contains("Q8_K") && error.contains("Q4_K"), "{error}");
}

#[test]
fn a_tensor_nobody_knows_is_refused() {
    let mut bytes = written(&tiny("llama"), Types::all(Block::F32));
    let name = b"blk.1.ffn_up.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[at + 9] = b'x';
    let error = parse(bytes).err().unwrap().to_string();
    assert!(error.contains("blk.1.ffnxup.weight"), "{error}");
}

struct Huge;

impl Tensors for Huge {
    fn get(&self, name: &str) -> Result<Tensor<'_>, CheckpointError> {
        let shape = model::names::shape_of(&tiny("llama"), name).unwrap();
        let values = vec![1e6; shape.iter().product()];
        Ok(Tensor { shape, data: TensorData::F32(Cow::Owned(values)) })
    }

    fn contains(&self, _: &str) -> bool {
        true
    }
}

#[test]
fn what_cannot_be_written_is_refused() {
    let a = tiny("llama");
    let attempt = |a: &Architecture, types| {
        write(&mut std::io::sink(), "m", (a, &Huge), None, types, &mut |_, _| {}).unwrap_err().to_string()
    };
    let error = attempt(&a, Types::all(Block::F16));
    assert!(error.contains("token_embd.weight") && error.contains("F16"), "{error}");
    assert!(attempt(&a, Types::all(Block::Q6K)).contains("Q6_K"));
    let windowed = Architecture { windows: vec![Some(8); 2], ..a.clone() };
    assert!(attempt(&windowed, Types::all(Block::F16)).contains("sliding windows"));
    let other = Architecture { family: "opt".into(), ..a };
    assert!(attempt(&other, Types::all(Block::F16)).contains("`opt`"));
}

/// A key with its value as the format stores them.
fn key(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&(name.len() as u64).to_le_bytes()[..], name.as_bytes(), &kind.to_le_bytes(), value].concat()
}

fn number(name: &str, value: f32) -> Vec<u8> {
    key(name, 6, &value.to_le_bytes())
}

fn whole(name: &str, value: u32) -> Vec<u8> {
    key(name, 4, &value.to_le_bytes())
}

/// `file` with more keys, and one that keeps its data where a multiple of 32 begins.
fn with_keys(file: &[u8], keys: &[Vec<u8>]) -> Vec<u8> {
    let mut added = keys.concat();
    let room = (32 - (added.len() + 26) % 32) % 32;
    added.extend(key("filler", 8, &[&(room as u64).to_le_bytes()[..], &vec![b' '; room]].concat()));
    let count = u64::from_le_bytes(file[16..24].try_into().unwrap()) + keys.len() as u64 + 1;
    [&file[..16], &count.to_le_bytes(), &added, &file[24..]].concat()
}

/// A file of these keys and of one F32 matrix of ones.
fn part(keys: &[Vec<u8>], name: &str, [rows, columns]: [u64; 2]) -> Vec<u8> {
    let mut file =
        [&b"GGUF"[..], &3u32.to_le_bytes(), &1u64.to_le_bytes(), &(keys.len() as u64).to_le_bytes()].concat();
    file.extend(keys.concat());
    file.extend([&(name.len() as u64).to_le_bytes()[..], name.as_bytes(), &2u32.to_le_bytes()].concat());
    file.extend([columns.to_le_bytes(), rows.to_le_bytes()].concat());
    file.extend([&0u32.to_le_bytes()[..], &0u64.to_le_bytes()].concat());
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend((0..rows * columns).flat_map(|_| 1f32.to_le_bytes()));
    file
}

#[test]
fn a_stretch_without_a_type_is_linear_as_in_llama_cpp() {
    let plain = written(&tiny("llama"), Types::all(Block::F32));
    let scaling = |keys: &[Vec<u8>]| parse(with_keys(&plain, keys)).unwrap().architecture.rope().unwrap().clone();
    let by = |factor| model::architecture::RopeScaling::Linear { factor };
    assert_eq!(scaling(&[number("llama.rope.scaling.factor", 4.0)]).scaling, by(4.0));
    assert_eq!(scaling(&[number("llama.rope.scale_linear", 2.0)]).scaling, by(2.0));
    let both = [number("llama.rope.scale_linear", 2.0), number("llama.rope.scaling.factor", 4.0)];
    assert_eq!(scaling(&both).scaling, by(4.0));
    // cos and sin are scaled whatever the type
    let scaled = scaling(&[number("llama.rope.scaling.attn_factor", 1.5), number("llama.rope.scaling.factor", 4.0)]);
    let divisors = model::RopeTable::new(&scaled).divisors();
    assert!(scaled.attention_factor == 1.5 && divisors.iter().all(|d| (d - 4.0).abs() < 1e-5), "{divisors:?}");
}

#[test]
fn keys_that_nobody_reads_are_refused_by_name() {
    let plain = written(&tiny("llama"), Types::all(Block::F32));
    for name in ["llama.rope.new", "llama.attention.new", "llama.attention.scale", "llama.logit_scale"] {
        let error = parse(with_keys(&plain, &[number(name, 3.0)])).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains(name), "{name}: {error}");
    }
}

#[test]
fn errors_speak_of_the_files_keys() {
    let mut bytes = written(&tiny("llama"), Types::all(Block::F32));
    let name = b"llama.attention.head_count_kv";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len() + 4;
    bytes[at..at + 4].copy_from_slice(&3u32.to_le_bytes());
    let error = parse(bytes).err().unwrap().to_string();
    assert!(error.contains("llama.attention.head_count_kv") && !error.contains("num_"), "{error}");
}

#[test]
fn biases_that_a_model_has_no_place_for_are_refused_by_name() {
    let config = r#"{"model_type":"llama","vocab_size":64,"hidden_size":64,"intermediate_size":96,"num_hidden_layers":1,
        "num_attention_heads":4,"max_position_embeddings":128,"rms_norm_eps":1e-5,"attention_bias":true}"#;
    let a = Architecture::from_json(Path::new("config.json"), config).unwrap();
    let mut bytes = written(&a, Types::all(Block::F32));
    // Qwen2 has biases on queries, keys and values alone
    let places: Vec<usize> = (0..bytes.len() - 5).filter(|&at| &bytes[at..at + 5] == b"llama").collect();
    places.iter().for_each(|&at| bytes[at..at + 5].copy_from_slice(b"qwen2"));
    let error = parse(bytes).err().unwrap().to_string();
    assert!(error.contains("blk.0.attn_output.bias"), "{error}");
}

#[test]
fn the_first_part_of_a_split_model_stands_for_all() {
    let config = r#"{"model_type":"llama","vocab_size":64,"hidden_size":64,"intermediate_size":96,"num_hidden_layers":1,
        "num_attention_heads":4,"max_position_embeddings":128,"rms_norm_eps":1e-5,"tie_word_embeddings":true}"#;
    let a = Architecture::from_json(Path::new("config.json"), config).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |n: u32| folder.path().join(format!("m-{n:05}-of-00002.gguf"));
    let keys = |number: u32| [whole("split.no", number), whole("split.count", 2)];
    let first = with_keys(&written(&a, Types::all(Block::F32)), &keys(0));
    std::fs::write(file(1), first).unwrap();
    let error = open_gguf(&file(1)).err().unwrap().to_string();
    assert!(error.contains("m-00002-of-00002.gguf") && error.contains("missing"), "{error}");
    std::fs::write(file(2), part(&keys(1), "output.weight", [64, 64])).unwrap();
    let read = open_gguf(&file(1)).unwrap();
    assert!(!read.architecture.tied_head && read.files == [file(1), file(2)]);
    assert!(read.tensors.get("lm_head.weight").unwrap().data.to_f32().iter().all(|v| *v == 1.0));
    let error = open_gguf(&file(2)).err().unwrap().to_string();
    assert!(error.contains("part 2 of 2") && error.contains("m-00001-of-00002.gguf"), "{error}");
}
