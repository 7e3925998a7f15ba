//! A rotated model is the same function, in every family that can be rotated.

use super::*;
use model::transform::{Rotate, RotationKind, Transforms};

/// Families whose norms, widths or attention stand in the way, and the word that says so.
const REFUSED: &[(&str, &str)] = &[
    ("bloom", "norm on its embeddings"),
    ("deepseek", "latent"),
    ("exaone4", "norms after"),
    ("gemma2", "norms after"),
    ("gemma3", "norms after"),
    ("glm4", "norms after"),
    ("mpt", "cuts its values"),
    ("olmo2", "norms after"),
    ("olmo3", "norms after"),
    ("olmoe", "cuts its values"),
    ("olmo", "cuts its values"),
    ("opt-post-norm", "norms after"),
    ("pre-norm", "norms after"),
];

#[test]
fn rotated_models_keep_their_logits() {
    let mut rotated = 0;
    for family in families() {
        let (expected, plain) = (Expected::read(&family), open(&folder(&family)));
        let (tokens, want, _) = expected.prompts().pop().unwrap();
        for (kind, online) in [(RotationKind::Hadamard, true), (RotationKind::Orthogonal, false)] {
            let rotate = Some(Rotate { kind, seed: 5, online });
            let transforms = Transforms { rotate, ..Transforms::default() };
            if let Some((_, word)) = REFUSED.iter().find(|(name, _)| family.starts_with(name)) {
                let error = transforms.architecture(&plain.architecture).unwrap_err().to_string();
                assert!(error.contains(word), "{family}: {error}");
                continue;
            }
            let checkpoint = open(&folder(&family)).transformed(&transforms).unwrap();
            assert_eq!(checkpoint.architecture, transforms.architecture(&plain.architecture).unwrap());
            let engine = build(&checkpoint, &spec(AttentionSpec::Naive, WeightsSpec::F32), &device(Isa::best(), 1));
            let got = logits(&engine, &tokens);
            let worst = got.as_slice().iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let size = want.iter().fold(1.0f32, |m, v| m.max(v.abs()));
            assert!(worst <= 1e-3 * size, "{family}, {kind:?}: {worst} of {size}");
            let exact = model::reference::logits(&checkpoint.architecture, &*checkpoint.tensors, &tokens).unwrap();
            let worst = exact.concat().iter().zip(&want).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
            assert!(worst <= 1e-3 * f64::from(size), "{family}, {kind:?}, f64 reference: {worst}");
            rotated += 1;
        }
    }
    assert!(rotated >= 40, "only {rotated} rotated models were compared");
}
