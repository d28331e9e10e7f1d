// Proves that the page in the Python package is what this source builds: builds it again and compares every byte.
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'vite'

const committed = fileURLToPath(new URL('../../src/tokenplace/web/site', import.meta.url))
const fresh = mkdtempSync(join(tmpdir(), 'tokenplace-page-'))
const filesIn = (folder) =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => statSync(join(folder, name)).isFile())
    .sort()

try {
  await build({ logLevel: 'error', build: { outDir: fresh, emptyOutDir: true } })
  const names = [...new Set([...filesIn(committed), ...filesIn(fresh)])]
  const read = (folder, name) => {
    try {
      return readFileSync(join(folder, name))
    } catch {
      return Buffer.alloc(0)
    }
  }
  const different = names.filter((name) => !read(committed, name).equals(read(fresh, name)))
  if (different.length) {
    console.error(`Not what the source builds: ${different.join(', ')}. Run: npm run build`)
    process.exitCode = 1
  } else console.log(`${names.length} files in ${relative(process.cwd(), committed)} are what the source builds.`)
} finally {
  rmSync(fresh, { recursive: true, force: true })
}
