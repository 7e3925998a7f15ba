//! The page of a made-up run: its text, and its life in a real browser.

mod browser;
mod comparisons;
mod html;
mod sample;
