/**
 * @tokenplace/client/classic: the original's own protocol, for programs and servers that know no other.
 *
 * Not part of the main entry, so that nobody loads it who does not ask for it.
 */
export { type ClassicCall, ClassicClient, type ClassicEvent, type ClassicOptions } from './client/classic.ts'
export { ClassicRefusal } from './client/classic-relay.ts'
export { ClassicKey, ClassicPublicKey } from './sealing/rsa.ts'
export { type CipherMode, Envelope, type EnvelopeFields } from './sealing/envelope.ts'
export {
  ClassicStreamOpener,
  ClassicStreamSealer,
  openClassic,
  type OpenOptions,
  sealClassic,
  type SealOptions,
} from './sealing/classic.ts'
export * from './errors.ts'
