//! The page of a made-up run: its text, and its life in a real browser.

mod answer;
mod browser;
mod comparisons;
mod forge;
mod html;
mod sample;
