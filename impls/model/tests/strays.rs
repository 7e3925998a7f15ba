//! Tensors of a Hugging Face folder that its config.json has no place for are refused by name, unless they change nothing.

use std::path::Path;

use model::Architecture;
use model::checkpoint::{RandomTensors, Tensors, open_folder};
use safetensors::tensor::{Dtype, TensorView};

const CONFIG: &str = r#"{"model_type":"llama","vocab_size":32,"hidden_size":16,"intermediate_size":24,"num_hidden_layers":1,
    "num_attention_heads":2,"max_position_embeddings":64,"rms_norm_eps":1e-5,"tie_word_embeddings":true}"#;

/// What opening the checkpoint with `more` tensors says.
fn opened(config: &str, more: &[(&str, Vec<usize>, Vec<f32>)]) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let a = Architecture::from_json(Path::new("config.json"), config).unwrap();
    let random = RandomTensors::new(a.clone(), 5);
    let mut all: Vec<(String, Vec<usize>, Vec<f32>)> = model::names::tensors(&a)
        .into_iter()
        .map(|(name, shape)| (name.clone(), shape, random.get(&name).unwrap().data.to_f32()))
        .collect();
    all.extend(more.iter().map(|(name, shape, values)| (name.to_string(), shape.clone(), values.clone())));
    let bytes: Vec<Vec<u8>> = all.iter().map(|(.., v)| v.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = all
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    open_folder(folder.path()).map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn a_tied_model_with_another_head_is_refused() {
    let other = opened(CONFIG, &[("lm_head.weight", vec![32, 16], vec![1.0; 512])]).unwrap_err();
    assert!(other.contains("lm_head.weight") && other.contains("tie_word_embeddings"), "{other}");
    let a = Architecture::from_json(Path::new("config.json"), CONFIG).unwrap();
    let same = RandomTensors::new(a, 5).get("model.embed_tokens.weight").unwrap().data.to_f32();
    assert_eq!(opened(CONFIG, &[("lm_head.weight", vec![32, 16], same)]), Ok(()));
}

#[test]
fn stray_biases_and_norms_are_refused() {
    for (name, length) in [
        ("model.layers.0.mlp.up_proj.bias", 24),
        ("model.layers.0.self_attn.q_norm.weight", 8),
        ("model.layers.0.pre_feedforward_layernorm.weight", 16),
        ("model.norm.bias", 16),
    ] {
        let error = opened(CONFIG, &[(name, vec![length], vec![0.5; length])]).unwrap_err();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn what_changes_nothing_stays() {
    let zero = ("model.layers.0.self_attn.o_proj.bias", vec![16], vec![0.0; 16]);
    let buffer = ("model.layers.0.attn.bias", vec![1, 1, 4, 4], vec![1.0; 16]);
    let behind = ("model.layers.1.input_layernorm.weight", vec![16], vec![1.0; 16]);
    assert_eq!(opened(CONFIG, &[zero, buffer, behind]), Ok(()));
}
