//! What a launch did, counted; and the two rules by which requests of a warp are counted.

/// Counts of a launch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Instructions times the threads that executed them.
    pub thread_instructions: u64,
    /// Multiplications and additions of tensor-core instructions.
    pub mma_flops: u64,
    /// 32-byte sectors read, each once per warp request.
    pub global_read_sectors: u64,
    /// 32-byte sectors written, each once per warp request.
    pub global_write_sectors: u64,
    /// Requests of warps to shared memory.
    pub shared_requests: u64,
    /// Wavefronts beyond the fewest that the requested bytes could take.
    pub shared_conflicts: u64,
    /// Barriers of a whole block or a named part of it that completed.
    pub barriers: u64,
}

/// Distinct 32-byte sectors of a request of `bytes` per lane.
pub fn sectors(addresses: &[u64; 32], mask: u32, bytes: u64) -> u64 {
    let mut list = [0u64; 64];
    let mut count = 0;
    let mut sorted = true;
    for lane in 0..32 {
        if mask >> lane & 1 == 0 {
            continue;
        }
        let (first, last) = (addresses[lane] >> 5, (addresses[lane] + bytes - 1) >> 5);
        for sector in first..=last {
            if count > 0 && list[count - 1] == sector || count == 64 {
                continue;
            }
            sorted &= count == 0 || list[count - 1] < sector;
            list[count] = sector;
            count += 1;
        }
    }
    if sorted {
        return count as u64;
    }
    let list = &mut list[..count];
    list.sort_unstable();
    1 + list.windows(2).filter(|pair| pair[0] != pair[1]).count() as u64
}

/// Wavefronts of a shared request beyond the fewest: 4-byte accesses go as one phase, 8-byte ones as two halves, 16-byte ones as four quarters;
/// a phase takes as many wavefronts as the busiest bank has distinct words.
pub fn conflicts(addresses: &[u64; 32], mask: u32, bytes: u64) -> u64 {
    let lanes = match bytes {
        16.. => 8,
        8.. => 16,
        _ => 32,
    };
    let mut extra = 0;
    for phase in 0..32 / lanes {
        let mut words = [0u64; 32];
        let mut seen = 0u32;
        let mut clash = false;
        let from = phase * lanes;
        for lane in from..from + lanes {
            if mask >> lane & 1 == 0 {
                continue;
            }
            for word in addresses[lane] >> 2..(addresses[lane] + bytes).div_ceil(4) {
                let bank = word as usize & 31;
                clash |= seen >> bank & 1 == 1 && words[bank] != word;
                seen |= 1 << bank;
                words[bank] = word;
            }
        }
        if clash {
            extra += busiest(&addresses[from..from + lanes], mask >> from, bytes) - 1;
        }
    }
    extra
}

fn busiest(addresses: &[u64], mask: u32, bytes: u64) -> u64 {
    let mut words: Vec<u64> = addresses
        .iter()
        .enumerate()
        .filter(|(lane, _)| mask >> lane & 1 == 1)
        .flat_map(|(_, &address)| address >> 2..(address + bytes).div_ceil(4))
        .collect();
    words.sort_unstable();
    words.dedup();
    let mut banks = [0u64; 32];
    words.iter().for_each(|word| banks[*word as usize & 31] += 1);
    banks.into_iter().max().unwrap_or(1)
}
