//! Which accesses to shared memory are ordered: a vector clock per warp, joined at barriers, mbarriers and atomic operations.
//!
//! The warps of a cluster's blocks share one time; each block watches its own memory.
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
    /// Where the block's warps stand among the cluster's, and how many those are.
    first: usize,
    all: usize,
    /// What each warp of the block knows of the time of each of the cluster.
    clocks: Vec<Vec<u32>>,
    /// Per word: warp plus one, and its time.
    writes: Vec<(u32, u32)>,
    /// Per word and warp: its time.
    reads: Vec<u32>,
    /// The same of reads by warpgroup products; empty where there are none.
    products: Vec<u32>,
    met: HashMap<Meeting, Vec<u32>>,
    /// Per warp of the cluster: when it last did something to this block's memory.
    owed: Vec<u32>,
}

impl Races {
    /// For `bytes` bytes of shared memory of a block of `warps` warps, the `rank`th of `blocks`; `products` read them or do not.
    pub fn new(bytes: usize, warps: usize, products: bool, rank: usize, blocks: usize) -> Races {
        let (first, all) = (rank * warps, blocks * warps);
        let words = if all > 1 { bytes / 4 } else { 0 };
        let clocks = (0..warps).map(|warp| (0..all).map(|other| (first + warp == other) as u32).collect()).collect();
        let (writes, reads, owed) = (vec![(0, 0); words], vec![0; words * warps], vec![0; all]);
        let products = if products { vec![0; words * warps] } else { vec![] };
        Races { warps, first, all, clocks, writes, reads, products, met: HashMap::new(), owed }
    }

    /// Words that an access covers whole.
    fn words(&self, address: usize, count: usize) -> std::ops::Range<usize> {
        let range = address.div_ceil(4)..(address + count) / 4;
        if self.all > 1 { range } else { 0..0 }
    }

    /// A warp reads.
    #[inline]
    pub fn read(&mut self, address: usize, count: usize, warp: u32) -> Result<(), Trouble> {
        self.look(address, count, warp)?;
        let (_, time) = self.now(warp);
        for word in self.words(address, count) {
            self.reads[word * self.warps + warp as usize] = time;
        }
        Ok(())
    }

    /// A warp's part of a warpgroup's product has read. All of the group's reading is then over, so any of its warps may say so.
    pub fn read_by_product(&mut self, address: usize, count: usize, warp: u32) {
        let (_, time) = self.now(warp);
        for word in self.words(address, count) {
            self.products[word * self.warps + warp as usize] = time;
        }
    }

    /// Whether a warp may read.
    pub fn look(&self, address: usize, count: usize, warp: u32) -> Result<(), Trouble> {
        self.written_before(address, count, &self.clocks[warp as usize])
    }

    fn written_before(&self, address: usize, count: usize, clock: &[u32]) -> Result<(), Trouble> {
        for word in self.words(address, count) {
            let (writer, time) = self.writes[word];
            if writer != 0 && time > clock[self.first + writer as usize - 1] {
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
        let (_, time) = self.now(warp);
        for word in self.words(address, count) {
            self.writes[word] = (warp + 1, time);
        }
        Ok(())
    }

    /// A copy that a warp started will write.
    pub fn overwrite(&mut self, address: usize, count: usize, warp: u32) -> Result<(), Trouble> {
        let clock = std::mem::take(&mut self.clocks[warp as usize]);
        let outcome = self.overwrite_from(address, count, &clock);
        self.clocks[warp as usize] = clock;
        outcome
    }

    /// The same by a warp of the cluster that knew of these times.
    pub fn overwrite_from(&mut self, address: usize, count: usize, clock: &[u32]) -> Result<(), Trouble> {
        self.written_before(address, count, clock)?;
        for word in self.words(address, count) {
            let reads = &self.reads[word * self.warps..(word + 1) * self.warps];
            let late = (0..self.warps).find(|&other| reads[other] > clock[self.first + other]);
            if let Some(other) = late {
                return Err(Trouble::Race { address: 4 * word as u64, earlier: "read", warp: other as u32 });
            }
            self.check_products(word, clock)?;
            self.writes[word] = (0, 0);
        }
        Ok(())
    }

    /// Of each warpgroup whose product read the word, somebody's word must be known that it has.
    fn check_products(&self, word: usize, clock: &[u32]) -> Result<(), Trouble> {
        let Some(times) = self.products.get(word * self.warps..(word + 1) * self.warps) else { return Ok(()) };
        for (group, times) in times.chunks(4).enumerate() {
            let known = |(warp, time): (usize, &u32)| *time > 0 && *time <= clock[self.first + 4 * group + warp];
            if times.iter().any(|&time| time > 0) && !times.iter().enumerate().any(known) {
                return Err(Trouble::Race { address: 4 * word as u64, earlier: "read", warp: 4 * group as u32 });
            }
        }
        Ok(())
    }

    /// What the warp did so far comes before what those do who [`follow`](Races::follow).
    pub fn lead(&mut self, warp: u32, at: Meeting) {
        if self.all < 2 {
            return;
        }
        let met = self.met.entry(at).or_insert_with(|| vec![0; self.all]);
        join(met, &self.clocks[warp as usize]);
        self.clocks[warp as usize][self.first + warp as usize] += 1;
    }

    /// The same by a warp of another block that knew of these times.
    pub fn lead_from(&mut self, clock: &[u32], at: Meeting) {
        join(self.met.entry(at).or_insert_with(|| vec![0; self.all]), clock);
    }

    /// What a warp knows, to be told elsewhere: what it does from now on is not part of it.
    pub fn depart(&mut self, warp: u32) -> Vec<u32> {
        let clock = &mut self.clocks[warp as usize];
        let told = clock.clone();
        clock[self.first + warp as usize] += 1;
        told
    }

    /// Place of a warp in the cluster, and its time.
    pub fn now(&self, warp: u32) -> (usize, u32) {
        let place = self.first + warp as usize;
        (place, self.clocks[warp as usize][place])
    }

    /// A warp of another block touched this block's memory at its time `time`: the block may end only after that.
    pub fn owe(&mut self, place: usize, time: u32) {
        self.owed[place] = self.owed[place].max(time);
    }

    /// A warp of the cluster of whose last touch no warp of this block knows.
    pub fn unpaid(&self) -> Option<usize> {
        (0..self.all).find(|&place| self.clocks.iter().all(|clock| clock[place] < self.owed[place]))
    }

    /// What the warp does from now on comes after what those did who led.
    pub fn follow(&mut self, warp: u32, at: Meeting) {
        if let Some(met) = self.met.get(&at) {
            join(&mut self.clocks[warp as usize], met);
        }
    }

    /// The same after all of whom these times tell.
    pub fn follow_all(&mut self, warp: u32, met: &[u32]) {
        join(&mut self.clocks[warp as usize], met);
    }
}

/// The later of each two times.
pub fn join(times: &mut [u32], others: &[u32]) {
    times.iter_mut().zip(others).for_each(|(time, &other)| *time = other.max(*time));
}
