/** Pictures that people attach, made small enough to travel under the seal. */
import type { Picture } from './types.ts'

/** What vision models look at is smaller than this; larger pictures only cost time. */
const LONGEST_SIDE = 1280
const QUALITY = 0.85

export const MOST_PICTURES = 6
export const ACCEPTED = 'image/png,image/jpeg,image/webp,image/gif,image/avif'

/** Throws when the file is no picture that this browser can read. */
export async function readPicture(file: File): Promise<Picture> {
  const bitmap = await createImageBitmap(file)
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height))
  const canvas = document.createElement('canvas')
  canvas.width = Math.max(1, Math.round(bitmap.width * scale))
  canvas.height = Math.max(1, Math.round(bitmap.height * scale))
  const context = canvas.getContext('2d')
  if (!context) throw new Error('no canvas')
  // JPEG has no transparency; what was see-through becomes white, as on paper.
  context.fillStyle = '#fff'
  context.fillRect(0, 0, canvas.width, canvas.height)
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height)
  bitmap.close()
  // Drawing it anew also leaves behind what cameras write into files: place, time, device.
  return { name: file.name || 'picture', url: canvas.toDataURL('image/jpeg', QUALITY) }
}

export const picturesIn = (items: DataTransfer | null): File[] =>
  [...(items?.files ?? [])].filter((file) => file.type.startsWith('image/'))
