//! Quality against speed against memory: one point per cell, drawn here for the default metrics and redrawn by the script for others.

use results::observation::{Direction, Status};
use results::summary::Role;
use serde::Serialize;

use super::{Content, Section};
use crate::chart::scatter::{self, AxisTitle, Point, Range};
use crate::digest::{Cell, Digest};
use crate::mark::SHAPES;
use crate::wording;
use choice::{Choice, MEMORY, choices, defaults, pick, value_text};
use standing::{Standing, Told, standings, told};

mod choice;
mod standing;

/// See the module.
pub const SECTION: Section = Section {
    id: "pareto",
    title: "Trade-off",
    reading: "Each point is one combination of techniques; whiskers are 95 % intervals (of quality: of the \
              paired difference from the reference, since all cells read the same text). The stepped line joins the points with the best \
              estimates. A pale point is beaten: a point on the line is better beyond noise in one direction and not told worse in the \
              other, so you would hardly choose the pale one. A point beside the line that is not pale cannot be told apart from it. \
              Larger points need more memory.",
    template: include_str!("../../templates/pareto.tera"),
    content,
};

#[derive(Serialize)]
struct CellData<'a> {
    id: &'a str,
    label: &'a str,
    role: Role,
    colour: usize,
    shape: usize,
    fill: usize,
    tick: usize,
    places: &'a [String],
}

#[derive(Serialize)]
struct Data<'a> {
    cells: Vec<CellData<'a>>,
    axes: Vec<&'static str>,
    metrics: &'a [Choice],
    shapes: [&'static str; 7],
    x: usize,
    y: usize,
    size: Option<usize>,
}

#[derive(Serialize)]
struct AxisLegend {
    name: &'static str,
    values: Vec<(String, String)>,
}

/// A cell without numbers.
#[derive(Serialize)]
pub struct Missing {
    icon: &'static str,
    word: &'static str,
    label: String,
    id: String,
    reason: String,
}

#[derive(Serialize)]
struct Row {
    cell: String,
    icon: String,
    label: String,
    values: Vec<String>,
    place: String,
}

#[derive(Serialize)]
struct Values<'a> {
    svg: String,
    data: String,
    choices: &'a [Choice],
    x: usize,
    y: usize,
    size: Option<usize>,
    legend: Vec<AxisLegend>,
    columns: Vec<String>,
    rows: Vec<Row>,
    missing: Vec<Missing>,
}

fn content(digest: &Digest) -> tera::TeraResult<Content> {
    let mut choices = choices(digest);
    let Some((x, y)) = defaults(&choices) else {
        return Ok(Content::Absent("a trade-off needs two different metrics on at least two cells"));
    };
    let size = pick(&choices, MEMORY, &[]);
    let known = [told(digest, &choices[x]), told(digest, &choices[y])];
    for (choice, known) in [x, y].into_iter().zip(&known) {
        choices[choice].told =
            Some(known.iter().map(|row| row.iter().map(|b| if *b { '1' } else { '0' }).collect()).collect());
    }
    let mut points = points(digest, &choices, x, y, size);
    let places = places(digest, &mut points, [choices[x].direction, choices[y].direction], &known);
    let (x_title, y_title) = (axis_title(&choices[x]), axis_title(&choices[y]));
    let description = describe(&points, &x_title, &y_title);
    let title = format!("{} against {}", choices[y].name, choices[x].name);
    let svg = scatter::draw("pareto-chart", &title, &description, (960.0, 520.0), &points, (&x_title, &y_title));
    let shown: Vec<usize> = [Some(x), Some(y), size].into_iter().flatten().collect();
    Content::of(&Values {
        svg,
        data: script_json(&data(digest, &choices, x, y, size)),
        x,
        y,
        size,
        legend: legend(digest),
        columns: shown.iter().map(|c| choices[*c].name.clone()).collect(),
        rows: rows(digest, &choices, &shown, &points, &places),
        missing: missing(digest),
        choices: &choices,
    })
}

fn axis_title(choice: &Choice) -> AxisTitle {
    let unit = if choice.suffix.is_empty() { String::new() } else { format!(" ({})", choice.suffix) };
    AxisTitle { title: format!("{}{unit}, {}", choice.name, choice.better), direction: choice.direction }
}

fn points(digest: &Digest, choices: &[Choice], x: usize, y: usize, size: Option<usize>) -> Vec<Point> {
    let largest = size.map_or(0.0, |s| choices[s].values.iter().flatten().map(|v| v.0).fold(0.0, f64::max));
    let mut points = Vec::new();
    for (index, cell) in digest.cells.iter().enumerate() {
        let (Some(across), Some(up)) = (choices[x].values[index], choices[y].values[index]) else { continue };
        let share = size.and_then(|s| choices[s].values[index]).map(|v| (v.0 / largest).max(0.0).sqrt());
        let of = |choice: &Choice, v: (f64, f64, f64, usize)| Range {
            at: v.0 * choice.factor,
            low: v.1 * choice.factor,
            high: v.2 * choice.factor,
        };
        points.push(Point {
            cell: cell.id.clone(),
            label: cell.label.clone(),
            tip: tip(cell, choices, index, &[Some(x), Some(y), size]),
            mark: cell.mark,
            x: of(&choices[x], across),
            y: of(&choices[y], up),
            radius: share.filter(|s| s.is_finite()).map_or(7.0, |share| 4.5 + 6.5 * share),
            reference: cell.role == Role::Reference,
            control: cell.role == Role::AaControl,
            beaten: false,
        });
    }
    points
}

fn tip(cell: &Cell, choices: &[Choice], index: usize, shown: &[Option<usize>]) -> String {
    let mut tip = cell.label.clone();
    for choice in shown.iter().flatten().map(|c| &choices[*c]) {
        tip.push_str(&format!("\n{}: {}", choice.name, value_text(choice, index)));
    }
    tip
}

/// Where each point stands, in words; a point learns whether it is beaten, and its tooltip says where it stands.
fn places(digest: &Digest, points: &mut [Point], directions: [Direction; 2], known: &[Told; 2]) -> Vec<String> {
    let cells: Vec<usize> = points.iter().filter_map(|p| digest.index(&p.cell)).collect();
    let of_points = |told: &Told| cells.iter().map(|i| cells.iter().map(|j| told[*i][*j]).collect()).collect();
    let best = scatter::frontier(points, directions[0], directions[1]);
    let found = standings(points.len(), &best, &of_points(&known[0]), &of_points(&known[1]));
    let labels: Vec<String> = points.iter().map(|p| p.label.clone()).collect();
    let mut words = Vec::new();
    for (point, standing) in points.iter_mut().zip(found) {
        point.beaten = !point.control && matches!(standing, Standing::Beaten(_));
        let word = match standing {
            _ if point.control => "control".to_owned(),
            Standing::Frontier => "frontier".to_owned(),
            Standing::Beaten(by) => format!("beaten by {}", labels[by]),
            Standing::NotToldApart(from) if from.is_empty() => "not beaten".to_owned(),
            Standing::NotToldApart(from) => {
                let names: Vec<&str> = from.iter().map(|f| labels[*f].as_str()).collect();
                format!("not told apart from {}", names.join(", "))
            }
        };
        point.tip.push_str(&format!("\n{word}"));
        words.push(word);
    }
    words
}

fn describe(points: &[Point], x: &AxisTitle, y: &AxisTitle) -> String {
    let best = scatter::frontier(points, x.direction, y.direction);
    let names: Vec<&str> = best.iter().map(|i| points[*i].label.as_str()).collect();
    format!(
        "Scatter plot of {} cells. Across: {}. Upwards: {}. On the frontier: {}. The table below lists every value and where each cell stands.",
        points.len(),
        x.title,
        y.title,
        names.join("; ")
    )
}

fn rows(digest: &Digest, choices: &[Choice], shown: &[usize], points: &[Point], places: &[String]) -> Vec<Row> {
    let place = |cell: &Cell| match points.iter().position(|p| p.cell == cell.id) {
        Some(index) => places[index].clone(),
        None => "not measured".to_owned(),
    };
    let ok = digest.cells.iter().enumerate().filter(|(_, cell)| cell.status == Status::Ok);
    ok.map(|(index, cell)| Row {
        cell: cell.id.clone(),
        icon: cell.mark.icon(),
        label: cell.label.clone(),
        values: shown.iter().map(|c| value_text(&choices[*c], index)).collect(),
        place: place(cell),
    })
    .collect()
}

fn data<'a>(digest: &'a Digest, choices: &'a [Choice], x: usize, y: usize, size: Option<usize>) -> Data<'a> {
    let cell = |cell: &'a Cell| CellData {
        id: &cell.id,
        label: &cell.label,
        role: cell.role,
        colour: cell.mark.colour + 1,
        shape: cell.mark.shape,
        fill: cell.mark.fill,
        tick: cell.mark.tick,
        places: &cell.places,
    };
    Data {
        cells: digest.cells.iter().map(cell).collect(),
        axes: digest.axes.iter().map(|axis| axis.name).collect(),
        metrics: choices,
        shapes: SHAPES,
        x,
        y,
        size,
    }
}

/// JSON that may stand inside a script element: no `<` survives, so no tag can end or begin there.
fn script_json<T: Serialize>(value: &T) -> String {
    let json = serde_json::to_string(value).expect("plain data with string keys and finite numbers");
    json.replace("</", "<\\/").replace('<', "\\u003c")
}

fn legend(digest: &Digest) -> Vec<AxisLegend> {
    use crate::mark::Mark;
    let n = digest.axes.len();
    let channels: Vec<_> = digest.axes.iter().map(|axis| axis.channel).collect();
    let icon = |axis: usize, value: usize| {
        let mut places = vec![0; n];
        places[axis] = value;
        let mut mark = Mark::at(&places, &channels);
        if !matches!(channels[axis], crate::mark::Channel::ColourAndShape | crate::mark::Channel::Colour) {
            mark.colour = crate::mark::N_COLOURS;
        }
        mark.icon()
    };
    let axes = digest.axes.iter().enumerate().map(|(index, axis)| AxisLegend {
        name: axis.name,
        values: axis.values.iter().enumerate().map(|(v, value)| (value.clone(), icon(index, v))).collect(),
    });
    axes.collect()
}

/// Cells that ended without numbers, and why.
pub fn missing(digest: &Digest) -> Vec<Missing> {
    let ended = digest.cells.iter().filter(|cell| cell.status != Status::Ok);
    ended
        .map(|cell| {
            let (icon, word) = wording::status(cell.status);
            let reason = if cell.reason.is_empty() { "no reason was recorded".to_owned() } else { cell.reason.clone() };
            Missing { icon, word, label: cell.label.clone(), id: cell.id.clone(), reason }
        })
        .collect()
}
