//! The whole page: sections rendered one by one, style and scripts inlined.

use serde::Serialize;
use tera::{Context, Tera, TeraResult};

use crate::digest::Digest;
use crate::section::{Content, SECTIONS};

const STYLE: &str = concat!(
    include_str!("../templates/style/theme.css"),
    include_str!("../templates/style/page.css"),
    include_str!("../templates/style/chart.css"),
    include_str!("../templates/style/print.css"),
);

const SCRIPT: &str = concat!(
    include_str!("../templates/script/theme.js"),
    include_str!("../templates/script/tips.js"),
    include_str!("../templates/script/tables.js"),
    include_str!("../templates/script/plot.js"),
    include_str!("../templates/script/pareto.js"),
    include_str!("../templates/script/copy.js"),
    include_str!("../templates/script/selftest.js"),
);

#[derive(Serialize)]
struct Part {
    id: &'static str,
    title: &'static str,
    reading: &'static str,
    html: String,
}

/// The document for `digest`.
pub fn page(digest: &Digest) -> TeraResult<String> {
    let mut tera = Tera::new();
    // autoescape goes by the name's ending
    let templates = SECTIONS.iter().map(|section| (format!("{}.html", section.id), section.template));
    let page = [
        ("page.html".to_owned(), include_str!("../templates/page.tera")),
        ("cells.html".to_owned(), include_str!("../templates/cells.tera")),
    ];
    tera.add_raw_templates(templates.chain(page))?;
    let mut parts = Vec::new();
    let mut absent = Vec::new();
    for section in SECTIONS {
        match (section.content)(digest)? {
            Content::Absent(reason) => absent.push((section.title, reason)),
            Content::Shown(context) => parts.push(Part {
                id: section.id,
                title: section.title,
                reading: section.reading,
                html: tera.render(&format!("{}.html", section.id), &context)?,
            }),
        }
    }
    let mut context = Context::new();
    context.insert("title", &title(digest));
    context.insert("parts", &parts);
    context.insert("absent", &absent);
    context.insert("style", STYLE);
    context.insert("script", SCRIPT);
    tera.render("page.html", &context)
}

fn title(digest: &Digest) -> String {
    match digest.summary() {
        Some(summary) => format!("{} – infermark", summary.scenario),
        None => "infermark report".to_owned(),
    }
}
