//! Which accesses to shared memory are ordered: a vector clock per warp, joined at barriers, mbarriers and atomic operations.
//!
//! Two warps that touch the same word, one writing, without such an order between are a race. Lanes of one warp are not compared, and
//! neither are accesses of less than a word. What bulk copies write belongs to no warp: reading it early is caught otherwise.

use std::collections::HashMap;

use crate::fault::Trouble;

/// What orders warps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Meeting {
    /// A barrier by number.
    Barrier(u32),
    /// An mbarrier, or a word that is read and modified in one, by address.
    Word(u64),
}

/// Clocks and the last accesses of a block.
#[derive(Debug)]
pub struct Races {
    warps: usize,
    /// What each warp knows of each other's time.
    clocks: Vec<Vec<u32>>,
    /// Per word: warp plus one, and its time.
    writes: Vec<(u32, u32)>,
    /// Per word and warp: its time.
    reads: Vec<u32>,
    met: HashMap<Meeting, Vec<u32>>,
}

impl Races {
    /// For `bytes` bytes of shared memory and `warps` warps.
    pub fn new(bytes: usize, warps: usize) -> Races {
        let words = if warps > 1 { bytes / 4 } else { 0 };
        let clocks = (0..warps).map(|warp| (0..warps).map(|other| (warp == other) as u32).collect()).collect();
        Races { warps, clocks, writes: vec![(0, 0); words], reads: vec![0; words * warps], met: HashMap::new() }
    }

    /// Words that an access covers whole.
    fn words(&self, address: usize, count: usize) -> std::ops::Range<usize> {
        let range = address.div_ceil(4)..(address + count) / 4;
        if self.warps > 1 { range } else { 0..0 }
    }

    /// A warp reads.
    #[inline]
    pub fn read(&mut self, address: usize, count: usize, warp: u32) -> Result<(), Trouble> {
        self.look(address, count, warp)?;
        let time = self.clocks[warp as usize][warp as usize];
        for word in self.words(address, count) {
            self.reads[word * self.warps + warp as usize] = time;
        }
        Ok(())
    }

    /// A warp reads as a part of its warpgroup, of which any warp may say that the reading is over.
    pub fn look(&self, address: usize, count: usize, warp: u32) -> Result<(), Trouble> {
        let clock = &self.clocks[warp as usize];
        for word in self.words(address, count) {
            let (writer, time) = self.writes[word];
            if writer != 0 && writer != warp + 1 && time > clock[writer as usize - 1] {
                return Err(Trouble::Race { address: 4 * word as u64, earlier: "written", warp: writer - 1 });
            }
        }
        Ok(())
    }

    /// A warp writes; `same` if what is there already, which only readers of something else could mind.
    #[inline]
    pub fn write(&mut self, address: usize, count: usize, warp: u32, same: bool) -> Result<(), Trouble> {
        if same {
            return Ok(());
        }
        self.overwrite(address, count, warp)?;
        let time = self.clocks[warp as usize][warp as usize];
        for word in self.words(address, count) {
            self.writes[word] = (warp + 1, time);
        }
        Ok(())
    }

    /// A copy that a warp started will write.
    pub fn overwrite(&mut self, address: usize, count: usize, warp: u32) -> Result<(), Trouble> {
        self.look(address, count, warp)?;
        let clock = &self.clocks[warp as usize];
        for word in self.words(address, count) {
            let reads = &self.reads[word * self.warps..(word + 1) * self.warps];
            let late = (0..self.warps).find(|&other| other != warp as usize && reads[other] > clock[other]);
            if let Some(other) = late {
                return Err(Trouble::Race { address: 4 * word as u64, earlier: "read", warp: other as u32 });
            }
            self.writes[word] = (0, 0);
        }
        Ok(())
    }

    /// What the warp did so far comes before what those do who [`follow`](Races::follow).
    pub fn lead(&mut self, warp: u32, at: Meeting) {
        if self.warps < 2 {
            return;
        }
        let clock = &mut self.clocks[warp as usize];
        let met = self.met.entry(at).or_insert_with(|| vec![0; self.warps]);
        met.iter_mut().zip(clock.iter()).for_each(|(met, &time)| *met = time.max(*met));
        clock[warp as usize] += 1;
    }

    /// What the warp does from now on comes after what those did who led.
    pub fn follow(&mut self, warp: u32, at: Meeting) {
        if let Some(met) = self.met.get(&at) {
            self.clocks[warp as usize].iter_mut().zip(met).for_each(|(time, &met)| *time = met.max(*time));
        }
    }
}
