//! How text is cut into words before they are merged: the values of `tokenizer.ggml.pre` that llama.cpp knows.
//!
//! The patterns are those of the tokenizers that carry the name, which llama.cpp (`src/llama-vocab.cpp`) writes in its own way; where
//! a tokenizer's own is not published, llama.cpp's.

/// GPT-2's pattern.
pub(super) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Contractions of any case.
const SHORT: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
/// Punctuation, in ASCII's sense and Unicode's.
pub(super) const PUNCTUATION: &str = r"[\p{P}\$\+<=>\^~\|`]+";
/// Runs of digits, of one to three from the right.
const THREES: &str = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))";
/// Lines, and the breaks between them.
const LINES: &str = r"[^\n]+|[\n]+";
/// Chinese and Japanese.
const HAN_KANA: &str = "[一-龥぀-ゟ゠-ヿ]+";
/// DeepSeek-V3's last pattern.
const DEEPSEEK: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
/// DeepSeek-LLM's letters.
const LETTERS: &str = r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
/// BLOOM's words.
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
/// Scripts that AFMoE keeps apart.
const SCRIPTS: &str = "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+";

/// The patterns of cl100k and its kin: contractions of any case, a run of letters with what precedes it, digits, the rest.
fn newer(digits: &str) -> String {
    format!(r"{SHORT}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
}

/// o200k and its kin: words are cut where small letters turn to capitals; `without` leaves letters out.
fn cased(contractions: &str, digits: &str, after: &str, without: &str) -> String {
    let upper = format!(r"[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}{without}]");
    let lower = format!(r"[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}{without}]");
    let before = r"[^\r\n\p{L}\p{N}]?";
    format!(
        r"{before}{upper}*{lower}+{contractions}|{before}{upper}+{lower}*{contractions}|{digits}| ?[^\s\p{{L}}\p{{N}}]+{after}|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
}

fn o200k() -> String {
    cased(&format!("{SHORT}?"), r"\p{N}{1,3}", r"[\r\n/]*", "")
}

/// How text is cut before merging.
pub(super) struct Cut {
    /// Names in `tokenizer.ggml.pre`, the one that is written first.
    names: &'static [&'static str],
    /// Patterns, each applied to what the ones before left.
    pub(super) patterns: fn() -> Vec<String>,
    /// Text is brought to Unicode's form C first.
    pub(super) nfc: bool,
    /// A word that is a token is not merged.
    pub(super) whole_words: bool,
    /// Sequences get a beginning unless the file says otherwise.
    pub(super) add_bos: bool,
    /// Spaces are `▁` and other characters themselves, as in SentencePiece, instead of one character for each byte.
    pub(super) pieces: bool,
}

/// What most are.
const PLAIN: Cut =
    Cut { names: &[], patterns: Vec::new, nfc: false, whole_words: false, add_bos: false, pieces: false };

const CUTS: &[Cut] = &[
    Cut {
        names: &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "exaone4",
            "granite-docling",
            "roberta-bpe",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
        ],
        patterns: || vec![GPT2.into()],
        ..PLAIN
    },
    Cut {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        patterns: || vec![newer(r"\p{N}{1,3}")],
        whole_words: true,
        add_bos: true,
        ..PLAIN
    },
    Cut { names: &["dbrx", "smaug-bpe", "chatglm-bpe"], patterns: || vec![newer(r"\p{N}{1,3}")], ..PLAIN },
    Cut { names: &["glm4", "glm5"], patterns: || vec![newer(r"\p{N}{1,3}")], whole_words: true, ..PLAIN },
    Cut {
        names: &["tekken"],
        patterns: || vec![cased("", r"\p{N}", r"[\r\n/]*", "")],
        whole_words: true,
        add_bos: true,
        ..PLAIN
    },
    Cut { names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], patterns: || vec![o200k()], ..PLAIN },
    Cut { names: &["granite-embed-multi-97m"], patterns: || vec![o200k()], whole_words: true, ..PLAIN },
    Cut { names: &["tiny_aya", "cohere2moe"], patterns: || vec![r"\d{1,3}(?=(?:\d{3})*\b)".into(), o200k()], ..PLAIN },
    Cut {
        names: &["kimi-k2"],
        patterns: || {
            let rest = cased(&format!("{SHORT}?"), r"\p{N}{1,3}", r"[\r\n]*", r"&&[^\p{Han}]");
            vec![format!(r"[\p{{Han}}]+|{rest}")]
        },
        ..PLAIN
    },
    Cut {
        names: &["youtu"],
        patterns: || {
            let apart = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+";
            vec![apart.into(), cased(&format!("{SHORT}?"), r"\p{N}", r"[\r\n/]*", "")]
        },
        whole_words: true,
        ..PLAIN
    },
    Cut {
        names: &["deepseek-llm"],
        patterns: || {
            let marks = r"\s?[!-/:-~！-／：-～‘-‟　-。]+";
            [r"[\r\n]", LETTERS, marks, r"\s+$", "[一-龥ࠀ-一가-퟿]+", r"\p{N}+"].map(String::from).into()
        },
        ..PLAIN
    },
    Cut {
        names: &["deepseek-coder"],
        patterns: || [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"].map(String::from).into(),
        ..PLAIN
    },
    Cut {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        patterns: || [r"\p{N}{1,3}", HAN_KANA, DEEPSEEK].map(String::from).into(),
        ..PLAIN
    },
    Cut {
        names: &["spark2_5"],
        patterns: || {
            let last = DEEPSEEK.replace(r"[\r\n]*|\s*[\r\n]+", r"|[\r\n]");
            [r"\p{N}{1,3}", HAN_KANA, &last, r"\p{N}"].map(String::from).into()
        },
        ..PLAIN
    },
    Cut { names: &["afmoe"], patterns: || [THREES, SCRIPTS, DEEPSEEK].map(String::from).into(), ..PLAIN },
    Cut {
        names: &["qwen2", "deepseek-r1-qwen", "megrez", "kormo", "f2llmv2"],
        patterns: || vec![newer(r"\p{N}")],
        nfc: true,
        ..PLAIN
    },
    Cut {
        names: &["qwen35"],
        patterns: || {
            vec![format!(
                r"{SHORT}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            )]
        },
        ..PLAIN
    },
    Cut { names: &["stablelm2", "hunyuan", "solar-open", "grok-2"], patterns: || vec![newer(r"\p{N}")], ..PLAIN },
    Cut { names: &["laguna"], patterns: || vec![LINES.into(), newer(r"\p{N}")], ..PLAIN },
    Cut { names: &["minicpm5"], patterns: || vec![r"\p{N}{1,3}".into(), newer(r"\p{N}+")], whole_words: true, ..PLAIN },
    Cut {
        names: &["seed-coder"],
        patterns: || {
            vec![format!(
                r"{SHORT}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
            )]
        },
        ..PLAIN
    },
    Cut { names: &["ufakzeka"], patterns: || vec![newer(r"\p{N}").replacen(&format!("{SHORT}|"), "", 1)], ..PLAIN },
    Cut {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        patterns: || {
            vec![
                r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
                    .into(),
            ]
        },
        ..PLAIN
    },
    Cut {
        names: &["exaone-moe"],
        patterns: || {
            vec![format!(
                r"{SHORT}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
            )]
        },
        ..PLAIN
    },
    Cut {
        names: &["jais-2"],
        patterns: || {
            let runs = r"\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}";
            vec![newer(r"\p{N}{1,3}").replace(r"\s+(?!\S)|\s+", runs)]
        },
        ..PLAIN
    },
    Cut {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        patterns: || vec![r"\p{N}".into(), GPT2.into()],
        ..PLAIN
    },
    Cut { names: &["falcon"], patterns: || vec![PUNCTUATION.into(), GPT2.into(), "[0-9][0-9][0-9]".into()], ..PLAIN },
    Cut {
        names: &["default"],
        patterns: || vec![r"[\p{P}\$\+<=>\^~\|]+".into(), GPT2.into(), r"\p{N}+".into(), "[0-9][0-9][0-9]".into()],
        ..PLAIN
    },
    Cut { names: &["bloom", "poro-chat", "gpt3-finnish"], patterns: || vec![BLOOM.into()], ..PLAIN },
    Cut { names: &["viking"], patterns: || vec![BLOOM.into(), r"\p{N}".into()], ..PLAIN },
    Cut { names: &["superbpe"], patterns: || vec![r"\p{N}+".into(), THREES.into()], ..PLAIN },
    Cut {
        names: &["chameleon"],
        patterns: || {
            let image = "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z";
            let steps = ["<sentinel:[0-9]+>", image, r"([\t\n]|    |  )", r"\p{N}", r"[\p{P}!-/:-@\[-`{-~]", GPT2];
            steps.map(String::from).into()
        },
        add_bos: true,
        ..PLAIN
    },
    Cut {
        names: &["gemma4", "granite-embed-multi-311m", "sarvam-moe"],
        patterns: || vec![LINES.into()],
        pieces: true,
        ..PLAIN
    },
];

/// Every name.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    CUTS.iter().flat_map(|cut| cut.names).copied()
}

/// The cut called `name`.
pub(super) fn called(name: &str) -> Option<&'static Cut> {
    CUTS.iter().find(|cut| cut.names.contains(&name))
}

/// `pattern` as it is compared: line breaks as escapes, and greedy where it may not give back, which changes nothing in these.
fn canonical(pattern: &str) -> String {
    let mut text = pattern.replace('\r', r"\r").replace('\n', r"\n");
    for (possessive, greedy) in [("?+", "?"), ("++", "+"), ("*+", "*"), ("}+", "}")] {
        let class = |text: &str| text.replace(&format!("]{possessive}"), &format!("]{greedy}"));
        text = if possessive == "}+" { text } else { class(&text) };
    }
    for digits in [r"\p{N}{1,3}", r"\p{N}"] {
        text = text.replace(&format!("|{digits}+|"), &format!("|{digits}|"));
    }
    text.replace(r"'(?i:[sdmt]|ll|ve|re)", SHORT)
}

/// The name for cutting text by `patterns`: the one that keeps whole words alike before another.
pub(super) fn name_of(patterns: &[String], nfc: bool, whole_words: bool) -> Option<&'static str> {
    let same = |ours: &[String]| {
        let pairs = ours.iter().zip(patterns);
        ours.len() == patterns.len() && pairs.into_iter().all(|(a, b)| canonical(a) == canonical(b))
    };
    let fits = |cut: &&Cut| !cut.pieces && cut.nfc == nfc && same(&(cut.patterns)());
    let found = || CUTS.iter().filter(fits);
    found().find(|cut| cut.whole_words == whole_words).or_else(|| found().next()).map(|cut| cut.names[0])
}
