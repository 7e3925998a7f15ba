//! Weights and configs are untrusted: whatever is wrong is named, and nothing panics or allocates by a header's word.

use std::path::Path;

use model::Architecture;
use model::checkpoint::{Bytes, CheckpointError, SafeTensorsFile, Tensors, open_folder};

const GOOD: &str = r#"{"model_type":"llama","vocab_size":64,"hidden_size":16,"intermediate_size":24,"num_hidden_layers":1,
    "num_attention_heads":2,"rms_norm_eps":1e-5}"#;

fn parse(text: &str) -> Result<Architecture, String> {
    Architecture::from_json(Path::new("model/config.json"), text).map_err(|e| e.to_string())
}

fn with(field: &str, value: &str) -> Result<Architecture, String> {
    let mut json: serde_json::Value = serde_json::from_str(GOOD).unwrap();
    json[field] = serde_json::from_str(value).unwrap();
    parse(&json.to_string())
}

#[test]
fn a_minimal_config_is_read() {
    let a = parse(GOOD).unwrap();
    assert_eq!((a.head_dim, a.n_kv_heads, a.max_positions, a.tied_head), (8, 2, 2048, false));
}

#[test]
fn defaults_are_the_classes_own() {
    let theta = |family: &str| parse(&GOOD.replacen("llama", family, 1)).unwrap().rope().unwrap().theta;
    assert_eq!((theta("cohere"), theta("cohere2")), (500_000.0, 10_000.0));
    // absent is the class's number, null as many as query heads
    let kv_heads = |more: &str| {
        let text = format!(
            r#"{{"model_type":"glm","vocab_size":64,"hidden_size":16,"intermediate_size":24,"num_hidden_layers":1,
            "num_attention_heads":4{more}}}"#
        );
        parse(&text).unwrap().n_kv_heads
    };
    assert_eq!((kv_heads(""), kv_heads(r#","num_key_value_heads":null"#)), (2, 4));
}

/// Tables that are null are not there: their scale is that of the other.
#[test]
fn the_table_of_a_rotation_is_the_one_that_is_read() {
    let scale = |table: &str| {
        let text = format!(
            r#"{{"model_type":"deepseek_v2","vocab_size":64,"hidden_size":16,"intermediate_size":24,"num_hidden_layers":1,
            "num_attention_heads":2,"first_k_dense_replace":1,{table}:{{"rope_type":"yarn","factor":4.0,"mscale":0.7,
            "mscale_all_dim":0.7,"original_max_position_embeddings":512}}}}"#
        );
        parse(&text).unwrap().attention_scale
    };
    let plain = scale(r#""rope_scaling""#);
    assert!(plain > 1.0 / (192.0f32).sqrt());
    assert_eq!(plain, scale(r#""rope_parameters":null,"rope_scaling""#));
    let both = |scaling: &str| {
        let parameters = r#""rope_parameters":{"rope_type":"linear","factor":2.0}"#;
        parse(&GOOD.replacen('{', &format!(r#"{{{parameters},"rope_scaling":{scaling},"#), 1))
    };
    assert!(both(r#"{"rope_type":"linear","factor":2.0}"#).is_ok());
    let error = both(r#"{"rope_type":"linear","factor":4.0}"#).unwrap_err();
    assert!(error.contains("rope_scaling") && error.contains("one of the two"), "{error}");
}

#[test]
fn errors_name_file_field_and_what_is_there() {
    let cases = [
        ("vocab_size", "-1"),
        ("vocab_size", "\"many\""),
        ("vocab_size", "99999999999"),
        ("num_attention_heads", "3"),
        ("num_key_value_heads", "0"),
        ("rope_theta", "\"x\""),
        ("rope_theta", "0"),
        ("head_dim", "7"),
        ("tie_word_embeddings", "1"),
        ("rope_scaling", "3"),
        ("hidden_act", "7"),
        ("model_type", "null"),
    ];
    for (field, value) in cases {
        let error = with(field, value).unwrap_err();
        assert!(error.contains("model/config.json") && error.contains(field), "{field} = {value}: {error}");
    }
}

#[test]
fn what_would_change_the_function_is_refused_by_name() {
    let cases = [
        ("model_type", "\"mamba\"", "llama"),
        ("hidden_act", "\"xielu\"", "silu"),
        ("rope_scaling", r#"{"rope_type":"proportional","factor":4.0}"#, "yarn"),
        (
            "rope_parameters",
            r#"{"full_attention":{"rope_theta":1e4},"sliding_attention":{"rope_theta":1e6}}"#,
            "one rotation",
        ),
        ("alibi", "true", "alibi"),
        ("layer_types", "[\"sliding_attention\"]", "layer_types"),
        ("use_qk_norm", "true", "use_qk_norm"),
        ("logits_scaling", "8.0", "logits_scaling"),
        ("num_local_experts", "8", "num_local_experts"),
        ("partial_rotary_factor", "0.5", "partial_rotary_factor"),
        ("attn_logit_softcapping", "50.0", "attn_logit_softcapping"),
    ];
    for (field, value, word) in cases {
        let error = with(field, value).unwrap_err();
        assert!(error.contains("not supported") && error.contains(word), "{field} = {value}: {error}");
    }
    let gptj = r#"{"model_type":"gptj","vocab_size":64,"n_embd":16,"n_head":2,"n_layer":1,"rotary_dim":4,
        "scale_attn_by_inverse_layer_idx":true}"#;
    assert!(parse(gptj).unwrap_err().contains("scale_attn_by_inverse_layer_idx"));
    let gpt2 = gptj.replace("gptj", "gpt2").replace(r#""rotary_dim":4,"#, "");
    assert!(parse(&gpt2).unwrap().scale_by_layer);
}

/// What newer families write: a field that cannot be, or that no version of transformers means alike.
#[test]
fn families_name_the_field_that_is_wrong() {
    let llama_like = r#""vocab_size":64,"hidden_size":16,"intermediate_size":24,"num_hidden_layers":2,"num_attention_heads":2,"num_key_value_heads":2"#;
    let cases = [
        (
            r#""model_type":"gptj","vocab_size":64,"n_embd":16,"n_head":2,"n_layer":1,"rotary_dim":5"#.into(),
            "rotary_dim",
        ),
        (
            r#""model_type":"gptj","vocab_size":64,"n_embd":16,"n_head":2,"n_layer":1,"rotary_dim":null"#.into(),
            "rotary_dim",
        ),
        (
            r#""model_type":"codegen","vocab_size":64,"n_embd":48,"n_head":6,"n_layer":1,"rotary_dim":4"#.into(),
            "n_head",
        ),
        (r#""model_type":"bloom","vocab_size":64,"hidden_size":16,"n_head":3,"n_layer":1"#.into(), "n_head"),
        (
            r#""model_type":"mpt","vocab_size":64,"d_model":16,"n_heads":2,"n_layers":1,"attn_config":{"alibi":false}"#
                .into(),
            "attn_config.alibi",
        ),
        (format!(r#""model_type":"olmo3",{llama_like},"rope_theta":1e4"#), "rope_theta"),
        (
            format!(r#""model_type":"gemma3_text",{llama_like},"rope_parameters":{{"rope_theta":1e4}}"#),
            "rope_parameters",
        ),
        (format!(r#""model_type":"gemma3_text",{llama_like},"attn_logit_softcapping":50.0"#), "attn_logit_softcapping"),
        (format!(r#""model_type":"smollm3",{llama_like},"no_rope_layers":[1]"#), "no_rope_layers"),
        (format!(r#""model_type":"exaone4",{llama_like},"sliding_window_pattern":"LLLG""#), "sliding_window_pattern"),
        (
            format!(r#""model_type":"olmoe",{llama_like},"num_experts":2,"num_experts_per_tok":3"#),
            "num_experts_per_tok",
        ),
        (
            format!(
                r#""model_type":"deepseek_v3",{llama_like},"first_k_dense_replace":0,"n_routed_experts":4,"num_experts_per_tok":1,"n_group":3"#
            ),
            "n_group",
        ),
        (format!(r#""model_type":"gpt_oss",{llama_like}"#), "model_type"),
    ];
    for (fields, field) in cases {
        let error = parse(&format!("{{{fields}}}")).unwrap_err();
        assert!(error.contains("model/config.json") && error.contains(&format!("`{field}`")), "{fields}: {error}");
    }
}

#[test]
fn not_json_is_said() {
    assert!(parse("{").unwrap_err().contains("not a JSON object"));
    assert!(parse("[]").unwrap_err().contains("not a JSON object"));
}

fn file(bytes: Vec<u8>) -> Result<SafeTensorsFile, CheckpointError> {
    SafeTensorsFile::new(Path::new("model.safetensors"), Bytes::Static(bytes.leak()))
}

fn header(json: &str, data: usize) -> Vec<u8> {
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json.as_bytes());
    bytes.extend(vec![0; data]);
    bytes
}

#[test]
fn damaged_safetensors_are_refused() {
    let cases = [
        vec![],
        vec![1, 2, 3],
        u64::MAX.to_le_bytes().to_vec(),
        header("{}", 7),
        header(r#"{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,16]}}"#, 16),
        header(r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#, 12),
        header(r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}"#, 16),
        header("not json", 0),
    ];
    for bytes in cases {
        let shown = format!("{:?}", &bytes[..bytes.len().min(80)]);
        let error = file(bytes).err().unwrap_or_else(|| panic!("accepted {shown}")).to_string();
        assert!(error.contains("model.safetensors"), "{error}");
    }
}

#[test]
fn integer_tensors_are_refused_and_missing_ones_named() {
    let tensors = file(header(r#"{"a":{"dtype":"I64","shape":[2],"data_offsets":[0,16]}}"#, 16)).unwrap();
    assert!(tensors.get("a").unwrap_err().to_string().contains("I64"));
    assert!(tensors.get("b").unwrap_err().to_string().contains("`b` is missing"));
}

#[test]
fn an_unaligned_tensor_is_read() {
    let json = r#"{"b":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"a":{"dtype":"F32","shape":[2],"data_offsets":[2,10]}}"#;
    let mut bytes = header(json, 2);
    bytes.extend(1.5f32.to_le_bytes());
    bytes.extend((-2.0f32).to_le_bytes());
    assert_eq!(file(bytes).unwrap().get("a").unwrap().data.to_f32(), vec![1.5, -2.0]);
}

#[test]
fn folders_say_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let open = || open_folder(folder.path()).err().unwrap().to_string();
    assert!(open().contains("config.json"));
    std::fs::write(folder.path().join("config.json"), GOOD).unwrap();
    assert!(open().contains("model.safetensors"));
    std::fs::write(folder.path().join("model.safetensors"), "").unwrap();
    assert!(open().contains("empty"));
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let index = folder.path().join("model.safetensors.index.json");
    std::fs::write(&index, r#"{"weight_map":{"a":"../../etc/passwd"}}"#).unwrap();
    assert!(open().contains("leaves the folder"));
    std::fs::write(&index, r#"{"weight_map":{"a":"gone.safetensors"}}"#).unwrap();
    assert!(open().contains("gone.safetensors"));
}

#[test]
fn wrong_shapes_and_infinite_weights_are_named() {
    use model::block::read_layer;
    let a = parse(GOOD).unwrap();
    let gain = |values: &str, shape: usize| {
        header(&format!(r#"{{"model.layers.0.input_layernorm.weight":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,{}]}}}}"#, 4 * shape), 0)
            .into_iter()
            .chain(values.parse::<f32>().unwrap().to_le_bytes().repeat(shape))
            .collect::<Vec<u8>>()
    };
    let error = |bytes| read_layer(&a, &file(bytes).unwrap(), 0).err().unwrap().to_string();
    assert!(error(gain("1", 8)).contains("expected shape [16]"));
    assert!(error(gain("inf", 16)).contains("not finite"));
}
