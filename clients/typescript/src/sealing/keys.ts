/** Which of a card's keys to seal to. */
import { ClockSkew, KeyUnknown } from '../errors.ts'
import type { SealingKey } from '../wire/card.ts'
import { CLOCK_SKEW_MS } from '../wire/limits.ts'
import { Kem } from '../wire/request.ts'

/**
 * The client's pick: hybrid before plain X25519, then the one that lives longest. A clock difference of five minutes is
 * forgiven. Throws ClockSkew when all keys are of the future, KeyUnknown when the card is out of date.
 */
export function chooseKey(keys: readonly SealingKey[], nowMs: number): SealingKey {
  const begun = keys.filter((key) => key.notBeforeMs <= nowMs + CLOCK_SKEW_MS)
  const alive = begun.filter((key) => nowMs < key.notAfterMs + CLOCK_SKEW_MS)
  const hybrid = (key: SealingKey): number => Number(key.kem === Kem.X25519_MLKEM768)
  const best = alive.sort((a, b) => hybrid(b) - hybrid(a) || b.notAfterMs - a.notAfterMs)[0]
  if (best) return best
  throw begun.length ? new KeyUnknown() : new ClockSkew()
}
