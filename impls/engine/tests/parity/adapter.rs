//! LoRA adapters against PEFT: beside the weights and merged into them.

use super::*;
use engine::Adapter;
use engine::adapter::Overlay;

#[test]
fn logits_agree_with_peft() {
    let adapter = Arc::new(Adapter::open(&folder("llama3-gqa-lora")).unwrap());
    let file = folder("llama3-gqa-lora").join("expected.safetensors");
    let expected = SafeTensorsFile::new(&file, Bytes::map(&file).unwrap()).unwrap();
    let want = expected.get("logits").unwrap().data.to_f32();
    let tokens: Vec<TokenId> =
        expected.get("input_ids").unwrap().data.to_f32().into_iter().map(|id| TokenId(id as u32)).collect();
    let close = |what: &str, found: &[f32]| {
        assert_eq!(found.len(), want.len(), "{what}");
        let worst = found.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 2e-4, "{what}: {worst}");
    };
    for merge in [false, true] {
        let checkpoint = open(&folder("llama3-gqa")).adapted(adapter.clone(), merge).unwrap();
        for (isa, threads) in [(Isa::Scalar, 1), (Isa::best(), 2)] {
            let engine = build(&checkpoint, &spec(AttentionSpec::Naive, WeightsSpec::F32), &device(isa, threads));
            close(&format!("merge {merge}, {}", isa.name()), logits(&engine, &tokens).as_slice());
        }
    }
    let plain = open(&folder("llama3-gqa"));
    let merged = Overlay::new(&adapter, &plain.architecture, &*plain.tensors).unwrap();
    let exact = model::reference::logits(&plain.architecture, &merged, &tokens).unwrap().concat();
    close("f64 reference", &exact.into_iter().map(|v| v as f32).collect::<Vec<_>>());
    // without the adapter the logits are others
    let engine = build(&plain, &spec(AttentionSpec::Naive, WeightsSpec::F32), &device(Isa::best(), 1));
    let bare = logits(&engine, &tokens);
    assert!(bare.as_slice().iter().zip(&want).any(|(a, b)| (a - b).abs() > 0.1));
}

#[test]
fn adapters_of_other_models_are_refused() {
    let adapter = Arc::new(Adapter::open(&folder("llama3-gqa-lora")).unwrap());
    for other in ["gpt2", "llama-mha", "qwen2"] {
        let error = open(&folder(other)).adapted(adapter.clone(), false).err().unwrap().to_string();
        assert!(error.contains("llama3-gqa-lora"), "{error}");
    }
    let twice = open(&folder("llama3-gqa")).adapted(adapter.clone(), true).unwrap().adapted(adapter, true);
    assert!(twice.err().unwrap().to_string().contains("only one"));
}
