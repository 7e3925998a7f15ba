//! Rows as Polars frames in Parquet files, and as CSV; the only file that mentions Polars.
//!
//! Enums and axes are plain string columns, the schema version is a column too, so that any Parquet reader sees everything.
//! Files appear whole or not at all: written beside their place, synced, renamed.

use std::fs::File;
use std::io::{self, Cursor, Write};
use std::path::Path;

use polars::prelude::{Column, DataFrame, DataType, NamedFrom, PolarsError, Series};
use polars_io::SerReader;
use polars_io::parquet::read::ParquetReader;
use polars_io::parquet::write::{ParquetCompression, ParquetWriter};
use polars_utils::compression::ZstdLevel;

use crate::observation::{Axes, Direction, Fact, OWN_ENGINE, Observation, SCHEMA_VERSION, Status};
use crate::store::{StoreError, write_atomically};

const ZSTD_LEVEL: i32 = 6;
const VERSION_COLUMN: &str = "schema_version";

/// Rows as a frame: one column per field in declaration order, axes flattened, `schema_version` last.
pub fn observations_frame(rows: &[Observation]) -> Result<DataFrame, PolarsError> {
    let text = |name: &str, field: fn(&Observation) -> &str| {
        Column::from(Series::new(name.into(), rows.iter().map(field).collect::<Vec<_>>()))
    };
    let count = |name: &str, field: fn(&Observation) -> u32| {
        Column::from(Series::new(name.into(), rows.iter().map(field).collect::<Vec<_>>()))
    };
    let number = |name: &str, field: fn(&Observation) -> Option<f64>| {
        Column::from(Series::new(name.into(), rows.iter().map(field).collect::<Vec<_>>()))
    };
    DataFrame::new_infer_height(vec![
        text("run_id", |row| &row.run_id),
        text("scenario", |row| &row.scenario),
        text("cell", |row| &row.cell),
        text("engine", |row| &row.axes.engine),
        text("model", |row| &row.axes.model),
        text("attention", |row| &row.axes.attention),
        text("weights", |row| &row.axes.weights),
        text("kv", |row| &row.axes.kv),
        text("decoding", |row| &row.axes.decoding),
        text("device", |row| &row.axes.device),
        text("workload", |row| &row.workload),
        count("sitting", |row| row.sitting),
        count("repetition", |row| row.repetition),
        count("item", |row| row.item),
        text("metric", |row| &row.metric),
        text("formula_id", |row| &row.formula_id),
        text("unit", |row| &row.unit),
        text("direction", |row| row.direction.word()),
        number("value", |row| row.value),
        number("x", |row| row.x),
        text("status", |row| row.status.word()),
        text("reason", |row| &row.reason),
        count("threads", |row| row.threads),
        text("kernel_path", |row| &row.kernel_path),
        Column::from(Series::new("seed".into(), rows.iter().map(|row| row.seed).collect::<Vec<_>>())),
        count(VERSION_COLUMN, |_| SCHEMA_VERSION),
    ])
}

/// Facts as a frame.
pub fn facts_frame(facts: &[Fact]) -> Result<DataFrame, PolarsError> {
    let text = |name: &str, field: fn(&Fact) -> &str| {
        Column::from(Series::new(name.into(), facts.iter().map(field).collect::<Vec<_>>()))
    };
    DataFrame::new_infer_height(vec![
        text("run_id", |fact| &fact.run_id),
        text("scope", |fact| &fact.scope),
        text("key", |fact| &fact.key),
        text("value", |fact| &fact.value),
        Column::from(Series::new(VERSION_COLUMN.into(), vec![SCHEMA_VERSION; facts.len()])),
    ])
}

/// Writes `observations.parquet` (zstd) in one step.
pub fn write_observations(path: &Path, rows: &[Observation]) -> Result<(), StoreError> {
    write_parquet(path, observations_frame(rows))
}

/// Writes `provenance.parquet` (zstd) in one step.
pub fn write_facts(path: &Path, facts: &[Fact]) -> Result<(), StoreError> {
    write_parquet(path, facts_frame(facts))
}

/// Reads `observations.parquet`; errors name the file, the column and what was expected.
pub fn read_observations(path: &Path) -> Result<Vec<Observation>, StoreError> {
    let table = Table::open(path)?;
    let text = |name| table.text(name);
    let (run_id, scenario, cell, workload) = (text("run_id")?, text("scenario")?, text("cell")?, text("workload")?);
    let (model, attention, weights) = (text("model")?, text("attention")?, text("weights")?);
    // rows written before other engines could join have no such column
    let engine = if table.frame.column("engine").is_ok() { Some(text("engine")?) } else { None };
    let (kv, decoding, device) = (text("kv")?, text("decoding")?, text("device")?);
    let (metric, formula_id, unit) = (text("metric")?, text("formula_id")?, text("unit")?);
    let (reason, kernel_path) = (text("reason")?, text("kernel_path")?);
    let direction = table.words("direction", Direction::from_word, "lower, higher or none")?;
    let status = table.words("status", Status::from_word, "ok, wrong, failed or skipped")?;
    let (sitting, repetition) = (table.counts("sitting")?, table.counts("repetition")?);
    let (item, threads, seed) = (table.counts("item")?, table.counts("threads")?, table.seeds("seed")?);
    let (value, x) = (table.numbers("value")?, table.numbers("x")?);
    let row = |i: usize| Observation {
        run_id: run_id[i].clone(),
        scenario: scenario[i].clone(),
        cell: cell[i].clone(),
        axes: Axes {
            engine: engine.as_ref().map_or_else(|| OWN_ENGINE.to_string(), |engine| engine[i].clone()),
            model: model[i].clone(),
            attention: attention[i].clone(),
            weights: weights[i].clone(),
            kv: kv[i].clone(),
            decoding: decoding[i].clone(),
            device: device[i].clone(),
        },
        workload: workload[i].clone(),
        sitting: sitting[i],
        repetition: repetition[i],
        item: item[i],
        metric: metric[i].clone(),
        formula_id: formula_id[i].clone(),
        unit: unit[i].clone(),
        direction: direction[i],
        value: value[i],
        x: x[i],
        status: status[i],
        reason: reason[i].clone(),
        threads: threads[i],
        kernel_path: kernel_path[i].clone(),
        seed: seed[i],
    };
    Ok((0..table.frame.height()).map(row).collect())
}

/// Reads `provenance.parquet`.
pub fn read_facts(path: &Path) -> Result<Vec<Fact>, StoreError> {
    let table = Table::open(path)?;
    let (run_id, scope) = (table.text("run_id")?, table.text("scope")?);
    let (key, value) = (table.text("key")?, table.text("value")?);
    let columns = run_id.into_iter().zip(scope).zip(key.into_iter().zip(value));
    Ok(columns.map(|((run_id, scope), (key, value))| Fact { run_id, scope, key, value }).collect())
}

/// Rows in a Parquet file, from its footer alone.
pub fn count_rows(path: &Path) -> Result<usize, StoreError> {
    let file = File::open(path).map_err(|error| StoreError::io("open", path, error))?;
    ParquetReader::new(file).num_rows().map_err(|error| StoreError::unreadable(path, error))
}

/// Rows as CSV with a header, the columns of the Parquet file, empty cells for absent values.
pub fn export_csv(rows: &[Observation], destination: impl Write) -> Result<(), csv::Error> {
    let mut writer = csv::Writer::from_writer(destination);
    writer.write_record([
        "run_id",
        "scenario",
        "cell",
        "engine",
        "model",
        "attention",
        "weights",
        "kv",
        "decoding",
        "device",
        "workload",
        "sitting",
        "repetition",
        "item",
        "metric",
        "formula_id",
        "unit",
        "direction",
        "value",
        "x",
        "status",
        "reason",
        "threads",
        "kernel_path",
        "seed",
        VERSION_COLUMN,
    ])?;
    let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    for row in rows {
        let axes = &row.axes;
        for text in [&row.run_id, &row.scenario, &row.cell, &axes.engine, &axes.model, &axes.attention, &axes.weights] {
            writer.write_field(text)?;
        }
        for text in [&axes.kv, &axes.decoding, &axes.device, &row.workload] {
            writer.write_field(text)?;
        }
        for count in [row.sitting, row.repetition, row.item] {
            writer.write_field(count.to_string())?;
        }
        for text in [&row.metric, &row.formula_id, &row.unit, row.direction.word()] {
            writer.write_field(text)?;
        }
        writer.write_field(number(row.value))?;
        writer.write_field(number(row.x))?;
        writer.write_field(row.status.word())?;
        writer.write_field(&row.reason)?;
        writer.write_field(row.threads.to_string())?;
        writer.write_field(&row.kernel_path)?;
        writer.write_field(row.seed.to_string())?;
        writer.write_field(SCHEMA_VERSION.to_string())?;
        writer.write_record(None::<&[u8]>)?;
    }
    writer.flush()?;
    Ok(())
}

fn write_parquet(path: &Path, frame: Result<DataFrame, PolarsError>) -> Result<(), StoreError> {
    let unwritable = |error: PolarsError| StoreError::io("encode", path, io::Error::other(error.to_string()));
    let mut frame = frame.map_err(unwritable)?;
    let mut bytes = Vec::new();
    let level = ZstdLevel::try_new(ZSTD_LEVEL).map_err(unwritable)?;
    let writer = ParquetWriter::new(&mut bytes).with_compression(ParquetCompression::Zstd(Some(level)));
    writer.finish(&mut frame).map_err(unwritable)?;
    write_atomically(path, &bytes)
}

/// A Parquet file whose version this build understands.
struct Table<'a> {
    path: &'a Path,
    frame: DataFrame,
}

impl Table<'_> {
    fn open(path: &Path) -> Result<Table<'_>, StoreError> {
        let bytes = std::fs::read(path).map_err(|error| StoreError::io("read", path, error))?;
        let frame =
            ParquetReader::new(Cursor::new(bytes)).finish().map_err(|error| StoreError::unreadable(path, error))?;
        let table = Table { path, frame };
        match table.counts(VERSION_COLUMN)?.into_iter().max() {
            Some(version) if version > SCHEMA_VERSION => Err(StoreError::Newer { path: path.to_owned(), version }),
            _ => Ok(table),
        }
    }

    fn column(&self, name: &str, expected: &DataType) -> Result<&Series, StoreError> {
        let problem = |found: String| StoreError::Column {
            path: self.path.to_owned(),
            column: name.to_owned(),
            expected: expected.to_string(),
            found,
        };
        let column = self.frame.column(name).map_err(|_| problem("no such column".to_owned()))?;
        let series = column.as_materialized_series();
        if series.dtype() == expected { Ok(series) } else { Err(problem(series.dtype().to_string())) }
    }

    fn absent(&self, name: &str, row: usize) -> StoreError {
        StoreError::Column {
            path: self.path.to_owned(),
            column: name.to_owned(),
            expected: "a value in every row".to_owned(),
            found: format!("null in row {row}"),
        }
    }

    /// Every value of a column that may not hold nulls.
    fn all<T>(&self, name: &str, values: impl Iterator<Item = Option<T>>) -> Result<Vec<T>, StoreError> {
        values.enumerate().map(|(row, value)| value.ok_or_else(|| self.absent(name, row))).collect()
    }

    fn text(&self, name: &str) -> Result<Vec<String>, StoreError> {
        let series = self.column(name, &DataType::String)?;
        let strings = series.str().map_err(|error| StoreError::unreadable(self.path, error))?;
        self.all(name, strings.iter().map(|text| text.map(str::to_owned)))
    }

    fn words<T>(&self, name: &str, parse: fn(&str) -> Option<T>, expected: &str) -> Result<Vec<T>, StoreError> {
        let words = self.text(name)?.into_iter().map(|word| {
            parse(&word).ok_or_else(|| StoreError::Column {
                path: self.path.to_owned(),
                column: name.to_owned(),
                expected: expected.to_owned(),
                found: format!("`{word}`"),
            })
        });
        words.collect()
    }

    fn counts(&self, name: &str) -> Result<Vec<u32>, StoreError> {
        let series = self.column(name, &DataType::UInt32)?;
        self.all(name, series.u32().map_err(|error| StoreError::unreadable(self.path, error))?.iter())
    }

    fn seeds(&self, name: &str) -> Result<Vec<u64>, StoreError> {
        let series = self.column(name, &DataType::UInt64)?;
        self.all(name, series.u64().map_err(|error| StoreError::unreadable(self.path, error))?.iter())
    }

    fn numbers(&self, name: &str) -> Result<Vec<Option<f64>>, StoreError> {
        let series = self.column(name, &DataType::Float64)?;
        Ok(series.f64().map_err(|error| StoreError::unreadable(self.path, error))?.iter().collect())
    }
}
