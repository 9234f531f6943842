//! The maximum spanning tree of a spectrogram's points. First each point is joined
//! to a neighbour by its heaviest edge. Only the edges between the trees that result
//! are then sorted, and those that join two trees are kept (Kruskal's algorithm).
//!
//! Edges of the same weight are ordered by their index, so the tree is unique. It
//! is that of `distill.features.inversion.phase`, which finds it in another way.

use super::spectrogram::Grid;

/// Weight of the stronger end of an edge, the tie-breaker, relative to that of the
/// weaker end.
const FLOOR: f32 = 1e-6;

/// The edge from a point to the next frame is in the tree.
const FORWARD: u8 = 1;
/// The edge from a point to the next bin is in the tree.
const UPWARD: u8 = 2;
const VISITED: u8 = 4;

/// Bits of the digits by which edges are sorted: 31 in all, because weights are not
/// negative.
const DIGIT_BITS: [u32; 3] = [11, 10, 10];

/// A step along an edge of the tree, in its direction or against it.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// A spanning tree, and the memory to find it.
#[derive(Default)]
pub(crate) struct Tree {
    /// Edges: the weight's bits, inverted, then the edge's index.
    edges: Vec<u64>,
    sorted: Vec<u64>,
    /// The parent of each point; of a root minus the size of its tree.
    parents: Vec<i32>,
    /// The root of each point's tree before the edges are sorted.
    roots: Vec<u32>,
    links: Vec<u8>,
    stack: Vec<u32>,
}

impl Tree {
    /// Finds the tree for points of this power, from 0 to about 1.
    pub(crate) fn span(&mut self, grid: Grid, power: &[f32]) {
        let points = grid.points();
        self.links.clear();
        self.links.resize(points, 0);
        self.parents.clear();
        self.parents.resize(points, -1);
        self.join_heaviest(grid, power);
        self.list_edges(grid, power);
        self.sort_edges();
        for &edge in &self.edges {
            let edge = edge as u32 as usize;
            let (from, to, link) = match edge.checked_sub(points) {
                None => (edge, edge + 1, FORWARD),
                Some(point) => (point, point + grid.width, UPWARD),
            };
            if join(&mut self.parents, from, to) {
                self.links[from] |= link;
            }
        }
    }

    /// Joins each point to a neighbour by its heaviest edge.
    fn join_heaviest(&mut self, grid: Grid, power: &[f32]) {
        let Grid {
            bins,
            frames,
            width,
        } = grid;
        for bin in 0..bins {
            for frame in 0..frames {
                let point = bin * width + frame;
                // In ascending order of their indices: of equal edges the last counts.
                let edges = [
                    (frame > 0).then(|| (point - 1, FORWARD, point - 1)),
                    (frame + 1 < frames).then(|| (point, FORWARD, point + 1)),
                    (bin > 0).then(|| (point - width, UPWARD, point - width)),
                    (bin + 1 < bins).then(|| (point, UPWARD, point + width)),
                ];
                let weighted = edges.into_iter().flatten().map(|(from, link, neighbour)| {
                    (
                        weight(power[point], power[neighbour]),
                        from,
                        link,
                        neighbour,
                    )
                });
                let heaviest = weighted.max_by_key(|edge| edge.0);
                if let Some((_, from, link, neighbour)) = heaviest {
                    if join(&mut self.parents, point, neighbour) {
                        self.links[from] |= link;
                    }
                }
            }
        }
    }

    /// Lists the edges between different trees in descending order of their index.
    fn list_edges(&mut self, grid: Grid, power: &[f32]) {
        let points = grid.points();
        self.roots.clear();
        for point in 0..points {
            let root = root(&mut self.parents, point);
            self.roots.push(root as u32);
        }
        self.edges.clear();
        let Tree { roots, edges, .. } = self;
        let mut list = |row: usize, count: usize, step: usize, first: usize| {
            for point in (row..row + count).rev() {
                if roots[point] != roots[point + step] {
                    let weight = weight(power[point], power[point + step]);
                    let key = u64::from(0x7fff_ffff - weight) << 32;
                    edges.push(key | (first + point) as u64);
                }
            }
        };
        for row in (0..points - grid.width).step_by(grid.width).rev() {
            list(row, grid.frames, grid.width, points);
        }
        for row in (0..points).step_by(grid.width).rev() {
            list(row, grid.frames - 1, 1, 0);
        }
    }

    /// Sorts the edges by the upper halves of their keys and keeps the order of
    /// equal ones: a radix sort, from the last digit to the first.
    fn sort_edges(&mut self) {
        self.sorted.resize(self.edges.len(), 0);
        let mut shift = 32;
        for bits in DIGIT_BITS {
            let digit = |edge: u64| (edge >> shift) as usize & ((1 << bits) - 1);
            let mut places = [0_u32; 1 << DIGIT_BITS[0]];
            for &edge in &self.edges {
                places[digit(edge)] += 1;
            }
            let mut next = 0;
            for place in &mut places {
                (*place, next) = (next, next + *place);
            }
            for &edge in &self.edges {
                let place = &mut places[digit(edge)];
                self.sorted[*place as usize] = edge;
                *place += 1;
            }
            std::mem::swap(&mut self.edges, &mut self.sorted);
            shift += bits;
        }
    }

    /// Calls `visit` for each edge, so that `from` is `root` or was visited.
    pub(crate) fn walk(&mut self, grid: Grid, root: usize, mut visit: impl FnMut(Step)) {
        let Tree { links, stack, .. } = self;
        stack.clear();
        stack.push(root as u32);
        links[root] |= VISITED;
        while let Some(from) = stack.pop() {
            let from = from as usize;
            let neighbours = [
                (links[from] & FORWARD != 0).then(|| from + 1),
                (links[from] & UPWARD != 0).then(|| from + grid.width),
                from.checked_sub(1).filter(|&to| links[to] & FORWARD != 0),
                from.checked_sub(grid.width)
                    .filter(|&to| links[to] & UPWARD != 0),
            ];
            for to in neighbours.into_iter().flatten() {
                if links[to] & VISITED == 0 {
                    links[to] |= VISITED;
                    stack.push(to as u32);
                    visit(Step { from, to });
                }
            }
        }
    }
}

/// The weight of an edge: the power of the weaker end, with the stronger end as
/// tie-breaker, as bits that sort like the numbers.
fn weight(one: f32, other: f32) -> u32 {
    let weight = one.min(other) + FLOOR * one.max(other);
    weight.to_bits() & 0x7fff_ffff
}

/// Joins the trees of two points; returns whether they were two.
fn join(parents: &mut [i32], one: usize, other: usize) -> bool {
    let (one, other) = (root(parents, one), root(parents, other));
    if one == other {
        return false;
    }
    let (small, large) = if parents[one] > parents[other] {
        (one, other)
    } else {
        (other, one)
    };
    parents[large] += parents[small];
    parents[small] = large as i32;
    true
}

/// The root of a point's tree. The paths to it are halved on the way.
fn root(parents: &mut [i32], mut point: usize) -> usize {
    while let Ok(parent) = usize::try_from(parents[point]) {
        let Ok(next) = usize::try_from(parents[parent]) else {
            return parent;
        };
        parents[point] = next as i32;
        point = next;
    }
    point
}
