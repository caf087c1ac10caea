//! How many Leases a replica should hold, so that all hold about the same.

/// What a replica may do about the number of Leases that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// It may take this many more that are free.
    MayTake(usize),
    /// It holds its share.
    Enough,
    /// It gives back this many, because others have less.
    GiveBack(usize),
}

/// What a replica that holds `held` of `leases` does when `members` replicas are alive, itself included.
///
/// With a remainder some hold one more than others; nobody gives back that one, or it would wander for ever.
pub fn balance(held: usize, leases: usize, members: usize) -> Balance {
    let members = members.max(1);
    let share = leases.div_ceil(members);
    if held < share {
        Balance::MayTake(share - held)
    } else if held > share {
        Balance::GiveBack(held - share)
    } else {
        Balance::Enough
    }
}
