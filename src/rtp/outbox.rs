//! Datagrams on their way out, in buffers that are used again and again.

use super::session::Channel;

/// The longest datagram sent: an Ethernet MTU without IPv6 and UDP headers.
pub const MAX_DATAGRAM: usize = 1452;
/// A tick makes two RTP packets at most (10 ms packets) and an RTCP one; twice that, should the owner skip a turn.
const SLOTS: usize = 6;

#[derive(Debug)]
struct Slot {
    channel: Channel,
    len: usize,
    bytes: [u8; MAX_DATAGRAM],
}

/// A short queue; when nobody takes from it, the oldest gives way.
#[derive(Debug)]
pub(super) struct Outbox {
    slots: Box<[Slot]>,
    first: usize,
    count: usize,
}

impl Outbox {
    pub fn new() -> Self {
        let slot = || Slot { channel: Channel::Rtp, len: 0, bytes: [0; MAX_DATAGRAM] };
        Self { slots: std::iter::repeat_with(slot).take(SLOTS).collect(), first: 0, count: 0 }
    }

    /// Lets `fill` write a datagram and tell its length; with `None` nothing is queued.
    pub fn push(
        &mut self,
        channel: Channel,
        fill: impl FnOnce(&mut [u8; MAX_DATAGRAM]) -> Option<usize>,
    ) -> Option<usize> {
        if self.count == SLOTS {
            self.pop();
        }
        let slot = self.slots.get_mut((self.first + self.count) % SLOTS)?;
        (slot.channel, slot.len) = (channel, fill(&mut slot.bytes)?);
        self.count += 1;
        Some(slot.len)
    }

    /// The oldest datagram; its buffer stays untouched until the next [`Self::push`].
    pub fn pop(&mut self) -> Option<(Channel, &[u8])> {
        self.count = self.count.checked_sub(1)?;
        let slot = self.slots.get(self.first)?;
        self.first = (self.first + 1) % SLOTS;
        Some((slot.channel, slot.bytes.get(..slot.len)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_leave_in_order_and_the_oldest_gives_way() {
        let mut outbox = Outbox::new();
        for n in 0..8 {
            outbox.push(Channel::Rtp, |bytes| {
                bytes[0] = n;
                Some(1)
            });
        }
        assert_eq!(outbox.push(Channel::Rtcp, |_| None), None);
        let left: Vec<_> = std::iter::from_fn(|| outbox.pop().map(|(_, bytes)| bytes[0])).collect();
        assert_eq!(left, [3, 4, 5, 6, 7]); // the one that came to nothing had made room
    }
}
