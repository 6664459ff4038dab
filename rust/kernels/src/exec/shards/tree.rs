//! The binary tree in which processes add numbered gradients. Its shape depends on their number alone, so the bits of the sum do
//! not depend on who computes which. Knows no arrays.

/// The sum of `count` neighbouring gradients from the `first`, as one node of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    first: usize,
    count: usize,
}

/// Appends a node; a pair of equal, aligned ones becomes one. `merge` gets the number of nodes before the pair.
fn push(nodes: &mut Vec<Node>, node: Node, mut merge: impl FnMut(usize)) {
    nodes.push(node);
    while let [.., a, b] = nodes[..]
        && a.count == b.count
        && a.first.is_multiple_of(2 * a.count)
    {
        nodes.pop();
        nodes.pop();
        merge(nodes.len());
        nodes.push(Node { first: a.first, count: 2 * a.count });
    }
}

/// The pairs in which sums are added: a binary tree over all gradients whose shape depends on their number alone.
pub(super) fn additions(received: &[Node]) -> Vec<(usize, usize)> {
    let (mut nodes, mut places, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
    for (place, &node) in received.iter().enumerate() {
        places.push(place);
        push(&mut nodes, node, |before| {
            pairs.push((places[before], places[before + 1]));
            places.truncate(before + 1);
        });
    }
    while let [.., a, b] = places[..] {
        pairs.push((a, b));
        places.pop();
    }
    pairs
}

/// The sums that each of so many processes sends, of equal ranges of the gradients.
pub(super) fn sent(gradients: usize, ranks: usize) -> Vec<Vec<Node>> {
    let of = |rank: usize| {
        let mut nodes = Vec::new();
        for first in gradients * rank / ranks..gradients * (rank + 1) / ranks {
            push(&mut nodes, Node { first, count: 1 }, |_| {});
        }
        nodes
    };
    (0..ranks).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum over a range of gradients as a text, so that different orders differ.
    fn sum(gradients: usize, ranks: usize) -> String {
        let nodes = sent(gradients, ranks).concat();
        let mut texts: Vec<String> = nodes.iter().map(|node| tree(node.first, node.count)).collect();
        for (target, source) in additions(&nodes) {
            texts[target] = format!("({}+{})", texts[target], texts[source]);
        }
        texts[0].clone()
    }

    fn tree(first: usize, count: usize) -> String {
        if count == 1 {
            return first.to_string();
        }
        let left = count.next_power_of_two() / 2;
        format!("({}+{})", tree(first, left), tree(first + left, count - left))
    }

    #[test]
    fn the_order_of_additions_depends_on_the_number_of_gradients_alone() {
        for gradients in 1..40 {
            for ranks in 1..=gradients.min(9) {
                assert_eq!(sum(gradients, ranks), tree(0, gradients), "{gradients} gradients on {ranks} ranks");
            }
        }
    }
}
