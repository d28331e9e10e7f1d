/**
 * A node's fingerprint as a drawing, so that eyes notice when another node answers. Three rings of twelve arcs, mirrored,
 * and a colour, all from the node id. It is a reminder: to be sure, compare the id itself.
 */
import type { NodeId } from '@tokenplace/client'
import type { JSX } from 'preact'

const RINGS = [13.5, 9.5, 5.5]
const ARCS = 12
const ALPHABET = 'abcdefghijklmnopqrstuvwxyz234567'

const point = (radius: number, turn: number): string => {
  const angle = 2 * Math.PI * (turn - 0.25)
  return `${(16 + radius * Math.cos(angle)).toFixed(2)} ${(16 + radius * Math.sin(angle)).toFixed(2)}`
}

export function Seal({ node, size = 28 }: { node: NodeId; size?: number }): JSX.Element {
  const digits = [...node].map((character) => ALPHABET.indexOf(character))
  const bit = (i: number): boolean => Boolean(((digits[Math.floor(i / 5)] ?? 0) >> (i % 5)) & 1)
  const hue = ((digits[30] ?? 0) * 32 + (digits[31] ?? 0)) % 360
  const arcs: string[] = []
  for (const [ring, radius] of RINGS.entries()) {
    for (let arc = 0; arc < ARCS; arc++) {
      const mirrored = Math.min(arc, ARCS - 1 - arc)
      if (!bit(ring * (ARCS / 2) + mirrored + 1)) continue
      arcs.push(`M${point(radius, arc / ARCS)}A${radius} ${radius} 0 0 1 ${point(radius, (arc + 1) / ARCS)}`)
    }
  }
  return (
    <svg class="seal" width={size} height={size} viewBox="0 0 32 32" aria-hidden="true">
      <path
        d={arcs.join('')}
        fill="none"
        stroke={`oklch(0.62 0.11 ${hue})`}
        stroke-width="3.400"
        stroke-linecap="butt"
      />
      <circle cx="16" cy="16" r="2.200" fill={`oklch(0.62 0.11 ${hue})`} />
    </svg>
  )
}
