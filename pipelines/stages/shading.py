"""The corpus's renderer: light per vertex with soft shadows, texture and anti-aliasing per pixel, in numba on one core.

A frame is drawn in four steps. ``cast`` renders depth as a light sees it; ``light_vertices`` lights both sides of every
vertex (wrapped diffuse whose red reaches farther into the dark, as light under skin does; sky and ground; highlights,
along the strands for hair); ``draw_ids`` finds the nearest triangle at four samples a pixel; ``resolve`` shades each
pixel once per surface that it shows, with the surface's texture. Light adds up in linear values; a picture stores their
square root (gamma 2). Indices that the innermost loops use are unsigned: numba checks signed ones for being negative.

Array letters: V vertices, F triangles, L lights, H, W frame height and width in pixels.
"""

import functools

import numpy as np

# Materials: how a vertex takes light.
PLAIN, SKIN, HAIR, CLOTH, EYE = range(5)
# Depth of nothing: larger than any scene's, and finite, since the kernels are compiled to ignore infinities.
FAR = 1e9


def _compiled(function):
    """Compiles a function with numba (cached on disk) when it is first called: importing numba takes half a second."""

    @functools.cache
    def kernel():
        from numba import njit

        return njit(cache=True, fastmath=True, error_model="numpy")(function)

    @functools.wraps(function)
    def call(*args):
        return kernel()(*args)

    return call


@_compiled
def normals_of(points, faces, out):
    """Writes unit normals (V, 3) into ``out``: area-weighted means over each vertex's triangles."""
    out[:] = 0
    for f in range(faces.shape[0]):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, az = points[j, 0] - points[i, 0], points[j, 1] - points[i, 1], points[j, 2] - points[i, 2]
        bx, by, bz = points[k, 0] - points[i, 0], points[k, 1] - points[i, 1], points[k, 2] - points[i, 2]
        nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        out[i, 0] += nx
        out[i, 1] += ny
        out[i, 2] += nz
        out[j, 0] += nx
        out[j, 1] += ny
        out[j, 2] += nz
        out[k, 0] += nx
        out[k, 1] += ny
        out[k, 2] += nz
    for v in range(points.shape[0]):
        scale = np.float32(1) / (np.sqrt(out[v, 0] ** 2 + out[v, 1] ** 2 + out[v, 2] ** 2) + np.float32(1e-20))
        out[v, 0] *= scale
        out[v, 1] *= scale
        out[v, 2] *= scale


@_compiled
def seen_from(points, frame, scale, size, out):
    """Writes points (V, 3) as an orthographic light or probe sees them: x, y in texels of a (size, size) map, depth.

    ``frame`` (4, 3): the map's x, y and viewing directions, and the point at its centre; ``scale``: texels a metre.
    """
    half = np.float32(size) / np.float32(2)
    for v in range(points.shape[0]):
        x, y, z = points[v, 0] - frame[3, 0], points[v, 1] - frame[3, 1], points[v, 2] - frame[3, 2]
        out[v, 0] = (x * frame[0, 0] + y * frame[0, 1] + z * frame[0, 2]) * scale + half
        out[v, 1] = (x * frame[1, 0] + y * frame[1, 1] + z * frame[1, 2]) * scale + half
        out[v, 2] = x * frame[2, 0] + y * frame[2, 1] + z * frame[2, 2]


@_compiled
def cast(seen, faces, two_sided, first, last, depth):
    """Draws triangles ``first`` to ``last`` that face the light (and all of ``two_sided`` (F,) ones) into its depth map
    (S, S).
    """
    height, width = depth.shape
    half = np.float32(0.5)
    for f in range(first, last):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        xa, ya, xb, yb, xc, yc = seen[a, 0], seen[a, 1], seen[b, 0], seen[b, 1], seen[c, 0], seen[c, 1]
        area = (xb - xa) * (yc - ya) - (yb - ya) * (xc - xa)
        if area == 0 or (area > 0 and two_sided[f] == 0):
            continue
        x0 = max(0, int(np.ceil(min(xa, xb, xc) - half)))
        x1 = min(width - 1, int(np.floor(max(xa, xb, xc) - half)))
        y0 = max(0, int(np.ceil(min(ya, yb, yc) - half)))
        y1 = min(height - 1, int(np.floor(max(ya, yb, yc) - half)))
        if x0 > x1 or y0 > y1:
            continue
        inverse = np.float32(1) / area
        bx, by = (yc - ya) * inverse, -(xc - xa) * inverse
        cx, cy = -(yb - ya) * inverse, (xb - xa) * inverse
        px, py = np.float32(x0) + half - xa, np.float32(y0) + half - ya
        za, dzb, dzc = seen[a, 2], seen[b, 2] - seen[a, 2], seen[c, 2] - seen[a, 2]
        for y in range(y0, y1 + 1):
            wb, wc = px * bx + py * by, px * cx + py * cy
            entered = False
            for x in range(x0, x1 + 1):
                if wb >= 0 and wc >= 0 and wb + wc <= 1:
                    entered = True
                    z = za + wb * dzb + wc * dzc
                    if z < depth[y, x]:
                        depth[y, x] = z
                elif entered:
                    break
                wb += bx
                wc += cx
            py += np.float32(1)


@_compiled
def lit_share(seen, depth, bias, reach, out):
    """Writes the share (V,) of texels around each vertex, up to ``reach`` away, whose light reaches it."""
    size = depth.shape[0]
    for v in range(seen.shape[0]):
        x, y, z = int(seen[v, 0]), int(seen[v, 1]), seen[v, 2] - bias
        if x < reach or y < reach or x >= size - reach or y >= size - reach:
            out[v] = 1
            continue
        lit = 0
        for j in range(y - reach, y + reach + 1):
            for i in range(x - reach, x + reach + 1):
                if depth[j, i] >= z:
                    lit += 1
        out[v] = np.float32(lit) / np.float32((2 * reach + 1) ** 2)


@_compiled
def light_vertices(points, normals, up, material, albedo, gloss, ao, lit, lights, sky, ground, sided, front, back):
    """Lights vertices in camera axes.

    Args:
      points, normals: (V, 3) float32.
      up: (3,) float32, the head's up; hair hangs along it.
      material: (V,) uint8.
      albedo: (V, 3) float32 linear; gloss (V,); ao (V,) share of the sky that a vertex sees at rest.
      lit: (V,) share of the first light that reaches the vertex.
      lights: (L, 6) float32: unit direction to the light, colour.
      sky, ground: (3,) float32 colours of the light from above and below.
      sided: (V,) uint8, 1 where ``back`` is wanted.
      front, back: (V, 6) float32, written: diffuse light times albedo, highlights.
    """
    zero, one = np.float32(0), np.float32(1)
    for v in range(points.shape[0]):
        x, y, z = points[v, 0], points[v, 1], points[v, 2]
        scale = -one / np.sqrt(x * x + y * y + z * z)
        ex, ey, ez = x * scale, y * scale, z * scale  # to the eye
        kind = material[v]
        wide = np.float32(0.45) if kind == SKIN else np.float32(0.25) if kind == HAIR else np.float32(0.12)
        red, rest = (wide, np.float32(0.14)) if kind == SKIN else (wide, wide)
        occlusion = ao[v]
        for side in range(1 + sided[v]):
            sign = one if side == 0 else -one
            nx, ny, nz = sign * normals[v, 0], sign * normals[v, 1], sign * normals[v, 2]
            t = np.float32(0.5) - np.float32(0.5) * ny
            # A dark corner of skin is reddish: its walls light one another.
            soft = occlusion + np.float32(0.25) * occlusion * (one - occlusion)
            dr = (ground[0] + t * (sky[0] - ground[0])) * soft
            dg = (ground[1] + t * (sky[1] - ground[1])) * occlusion
            db = (ground[2] + t * (sky[2] - ground[2])) * occlusion
            sr, sg, sb = zero, zero, zero
            facing = max(zero, nx * ex + ny * ey + nz * ez)
            away = one - facing
            away *= away
            fresnel = np.float32(0.35) + np.float32(0.9) * away * away
            for k in range(lights.shape[0]):
                lx, ly, lz = lights[k, 0], lights[k, 1], lights[k, 2]
                reaches = lit[v] if k == 0 else np.float32(0.4) + np.float32(0.6) * occlusion
                d = nx * lx + ny * ly + nz * lz
                more = max(zero, (d + red) / (one + red))
                less = max(zero, (d + rest) / (one + rest))
                if kind == SKIN:
                    # Light under the skin softens a shadow's edge, red most.
                    r = more * (reaches + np.float32(0.22) * reaches * (one - reaches))
                    g, b = less * reaches, less * reaches
                else:
                    r = less * reaches
                    g, b = r, r
                dr += r * lights[k, 3]
                dg += g * lights[k, 4]
                db += b * lights[k, 5]
                hx, hy, hz = lx + ex, ly + ey, lz + ez
                scale = one / np.sqrt(hx * hx + hy * hy + hz * hz + np.float32(1e-12))
                hx, hy, hz = hx * scale, hy * scale, hz * scale
                if kind == HAIR:
                    u = up[0] * nx + up[1] * ny + up[2] * nz
                    tx, ty, tz = up[0] - u * nx, up[1] - u * ny, up[2] - u * nz
                    length = np.sqrt(tx * tx + ty * ty + tz * tz) + np.float32(1e-6)
                    along = (tx * hx + ty * hy + tz * hz) / length - np.float32(0.12)
                    s = max(zero, one - along * along)
                    s *= s
                    s *= s
                    s *= s
                    s *= s
                    shine = np.float32(0.4) * s * max(zero, d + np.float32(0.2)) * gloss[v] * reaches
                else:
                    s = max(zero, nx * hx + ny * hy + nz * hz)
                    s2 = s * s
                    s4 = s2 * s2
                    s8 = s4 * s4
                    s16 = s8 * s8
                    broad = s8 * s4 if kind == SKIN else s8
                    if kind == EYE:
                        s64 = s16 * s16
                        s64 *= s64
                        s64 *= s64
                        broad = np.float32(3.0) * s64 * s64
                    else:
                        broad = np.float32(0.4) * broad + np.float32(0.6) * s16 * s16
                    shine = gloss[v] * broad * fresnel * reaches * min(one, max(zero, d * np.float32(4)))
                sr += shine * lights[k, 3]
                sg += shine * lights[k, 4]
                sb += shine * lights[k, 5]
            target = front if side == 0 else back
            target[v, 0], target[v, 1], target[v, 2] = dr * albedo[v, 0], dg * albedo[v, 1], db * albedo[v, 2]
            target[v, 3], target[v, 4], target[v, 5] = sr, sg, sb


@_compiled
def to_samples(points, focal, cx, cy, out):
    """Writes points (V, 3) of camera axes as x, y in half pixels and depth."""
    for v in range(points.shape[0]):
        z = points[v, 2]
        out[v, 0] = np.float32(2) * (points[v, 0] / z * focal + cx)
        out[v, 1] = np.float32(2) * (points[v, 1] / z * focal + cy)
        out[v, 2] = z


@_compiled
def draw_ids(seen, faces, two_sided, first, last, ids, depth):
    """Draws triangles ``first`` to ``last`` where they are nearest: their number into ``ids`` (2H, 2W) int32, their
    depth into ``depth`` (2H, 2W) float32, which the caller has filled with ``FAR``. Triangles that show their back are
    left out unless ``two_sided`` (F,) is 1.
    """
    height, width = ids.shape
    zero, one, half = np.float32(0), np.float32(1), np.float32(0.5)
    slack = np.float32(2e-3)  # an edge's own samples belong to both its triangles: no cracks
    for f in range(first, last):
        a, b, c = np.uint64(faces[f, 0]), np.uint64(faces[f, 1]), np.uint64(faces[f, 2])
        za, zb, zc = seen[a, 2], seen[b, 2], seen[c, 2]
        if za <= zero or zb <= zero or zc <= zero:
            continue
        xa, ya, xb, yb, xc, yc = seen[a, 0], seen[a, 1], seen[b, 0], seen[b, 1], seen[c, 0], seen[c, 1]
        area = (xb - xa) * (yc - ya) - (yb - ya) * (xc - xa)
        # Image y points down, so the outside of a triangle has negative area.
        if area == zero or (area > zero and two_sided[f] == 0):
            continue
        x0 = max(0, int(np.ceil(min(xa, xb, xc) - half)))
        x1 = min(width - 1, int(np.floor(max(xa, xb, xc) - half)))
        y0 = max(0, int(np.ceil(min(ya, yb, yc) - half)))
        y1 = min(height - 1, int(np.floor(max(ya, yb, yc) - half)))
        if x0 > x1 or y0 > y1:
            continue
        inverse = one / area
        # Barycentric weights are affine in the sample: values at the first one, and steps.
        bx, by = (yc - ya) * inverse, -(xc - xa) * inverse
        cx, cy = -(yb - ya) * inverse, (xb - xa) * inverse
        ax, ay = -bx - cx, -by - cy
        px, py = np.float32(x0) + half - xa, np.float32(y0) + half - ya
        rb, rc = px * bx + py * by + slack, px * cx + py * cy + slack
        ra = one - (px * bx + py * by) - (px * cx + py * cy) + slack
        dzb, dzc = zb - za, zc - za
        dz = bx * dzb + cx * dzc
        # A row's samples inside: where each weight is positive, on one side of its zero.
        ia = -one / ax if ax != zero else zero
        ib = -one / bx if bx != zero else zero
        ic = -one / cx if cx != zero else zero
        wide = x1 - x0
        for y in range(y0, y1 + 1):
            low, high = 0, wide
            if ax > zero:
                low = max(low, int(np.ceil(ra * ia)))
            elif ax < zero:
                high = min(high, int(np.floor(ra * ia)))
            elif ra < zero:
                high = -1
            if bx > zero:
                low = max(low, int(np.ceil(rb * ib)))
            elif bx < zero:
                high = min(high, int(np.floor(rb * ib)))
            elif rb < zero:
                high = -1
            if cx > zero:
                low = max(low, int(np.ceil(rc * ic)))
            elif cx < zero:
                high = min(high, int(np.floor(rc * ic)))
            elif rc < zero:
                high = -1
            depths, names = depth[y], ids[y]
            z = za + (rb - slack) * dzb + (rc - slack) * dzc + np.float32(low) * dz
            for x in range(np.uint64(x0 + low), np.uint64(max(x0 + high + 1, x0 + low))):
                if z < depths[x]:
                    depths[x] = z
                    names[x] = f
                z += dz
            ra += ay
            rb += by
            rc += cy


@_compiled
def resolve(seen, faces, groups, front, back, weight, uv, texture, texels, labels, ids, depth, backdrop, color, label):
    """Turns samples into a picture and its labels.

    Args:
      seen: (V, 3) float32 of ``to_samples``; faces (F, 3).
      groups: (F,) uint8: neighbouring triangles of one group are one surface, shaded once a pixel.
      front, back: (V, 6) of ``light_vertices``.
      weight: (V,) float32, how strongly the texture shows.
      uv: (F, 3, 2) float32 texel coordinates of each triangle's corners; texture (F,) uint8 which of ``texels``;
        255 for none.
      texels: (M, R, C) int32, red + 256 green + 65536 blue, 128 meaning "as it is"; C is a power of 2, columns wrap.
      labels: (V,) uint8.
      ids, depth: (2H, 2W) of ``draw_ids``; where ``depth`` is ``FAR`` an id means nothing.
      backdrop: (H, W, 3) uint8.
      color: (H, W, 3) uint8, written.
      label: (H, W) uint8, written: the class of the corner nearest to the pixel's middle, or where surfaces meet in a
        pixel, to its last sample's.
    """
    height, width = color.shape[0], color.shape[1]
    rows, columns = texels.shape[1], texels.shape[2]
    zero, one, quarter = np.float32(0), np.float32(1), np.float32(0.25)
    level, knee, nothing = np.float32(1 / 32768), np.float32(0.82), np.float32(FAR)
    rest = one - knee
    sixteen, last_row, wrap = np.float32(16), np.float32(rows - 2), columns - 1
    last, p, q, s, m = np.uint64(faces.shape[0]), np.uint64(0), np.uint64(0), np.uint64(0), np.uint8(255)
    xa, ya, ux, uy, vx, vy, area, inverse = zero, zero, zero, zero, zero, zero, zero, zero
    lp, lq, ls = front[0], front[0], front[0]
    for i in range(height):
        upper, lower, names, names2 = depth[2 * i], depth[2 * i + 1], ids[2 * i], ids[2 * i + 1]
        line, behind, named = color[i], backdrop[i], label[i]
        line[:] = behind
        named[:] = 0
        for j in range(width):
            z0, z1, z2, z3 = upper[2 * j], upper[2 * j + 1], lower[2 * j], lower[2 * j + 1]
            near, far = min(min(z0, z1), min(z2, z3)), max(max(z0, z1), max(z2, z3))
            if near >= nothing:
                continue
            f0, f1 = np.uint64(names[2 * j]), np.uint64(names[2 * j + 1])
            f2, f3 = np.uint64(names2[2 * j]), np.uint64(names2[2 * j + 1])
            whole = far - near < np.float32(0.012)
            if whole:
                k = groups[f0]
                whole = groups[f1] == k and groups[f2] == k and groups[f3] == k
            r, g, b = zero, zero, zero
            for k in range(1 if whole else 4):
                f = f0 if k == 0 else f1 if k == 1 else f2 if k == 2 else f3
                share = one if whole else quarter
                if (z0 if k == 0 else z1 if k == 1 else z2 if k == 2 else z3) >= nothing:
                    r += share * np.float32(behind[j, 0])
                    g += share * np.float32(behind[j, 1])
                    b += share * np.float32(behind[j, 2])
                    continue
                if f != last:
                    # Two neighbours of three show the same triangle.
                    last = f
                    p, q, s = np.uint64(faces[f, 0]), np.uint64(faces[f, 1]), np.uint64(faces[f, 2])
                    xa, ya = seen[p, 0], seen[p, 1]
                    ux, uy, vx, vy = seen[q, 0] - xa, seen[q, 1] - ya, seen[s, 0] - xa, seen[s, 1] - ya
                    area = ux * vy - uy * vx
                    inverse = one / area
                    light = front if area < zero else back
                    lp, lq, ls = light[p], light[q], light[s]
                    m = texture[f]
                if whole:
                    x, y = np.float32(2 * j + 1) - xa, np.float32(2 * i + 1) - ya
                else:
                    x = np.float32(2 * j + k % 2) + np.float32(0.5) - xa
                    y = np.float32(2 * i + k // 2) + np.float32(0.5) - ya
                wq, ws = (x * vy - y * vx) * inverse, (ux * y - uy * x) * inverse
                wq, ws = min(max(wq, zero), one), min(max(ws, zero), one)
                if wq + ws > one:
                    wq, ws = wq / (wq + ws), ws / (wq + ws)
                wp = one - wq - ws
                if whole or k == 3:
                    named[j] = labels[p if wp >= wq and wp >= ws else q if wq >= ws else s]
                cr = wp * lp[0] + wq * lq[0] + ws * ls[0]
                cg = wp * lp[1] + wq * lq[1] + ws * ls[1]
                cb = wp * lp[2] + wq * lq[2] + ws * ls[2]
                hr = wp * lp[3] + wq * lq[3] + ws * ls[3]
                hg = wp * lp[4] + wq * lq[4] + ws * ls[4]
                hb = wp * lp[5] + wq * lq[5] + ws * ls[5]
                if m != 255:
                    tu = wp * uv[f, 0, 0] + wq * uv[f, 1, 0] + ws * uv[f, 2, 0]
                    tv = wp * uv[f, 0, 1] + wq * uv[f, 1, 1] + ws * uv[f, 2, 1]
                    w = wp * weight[p] + wq * weight[q] + ws * weight[s]
                    # Fixed point: 4 bits between texels are enough.
                    qu, qv = int(tu * sixteen) + (columns << 8), int(min(max(tv, zero), last_row) * sixteen)
                    u0, fu, v0, fv = np.uint64((qu >> 4) & wrap), qu & 15, np.uint64(qv >> 4), qv & 15
                    u1, v1 = np.uint64(((qu >> 4) + 1) & wrap), np.uint64((qv >> 4) + 1)
                    a, c, d, e = (16 - fu) * (16 - fv), fu * (16 - fv), (16 - fu) * fv, fu * fv
                    p0, p1, p2, p3 = texels[m, v0, u0], texels[m, v0, u1], texels[m, v1, u0], texels[m, v1, u1]
                    tr = a * (p0 & 255) + c * (p1 & 255) + d * (p2 & 255) + e * (p3 & 255)
                    tg = a * (p0 >> 8 & 255) + c * (p1 >> 8 & 255) + d * (p2 >> 8 & 255) + e * (p3 >> 8 & 255)
                    tb = a * (p0 >> 16) + c * (p1 >> 16) + d * (p2 >> 16) + e * (p3 >> 16)
                    cr *= one + w * (np.float32(tr) * level - one)
                    cg *= one + w * (np.float32(tg) * level - one)
                    cb *= one + w * (np.float32(tb) * level - one)
                    glint = one + w * (np.float32(tg) * level - one)
                    hr, hg, hb = hr * glint, hg * glint, hb * glint
                # Gamma 2 with a shoulder, so that a highlight does not end in a flat white patch.
                cr, cg, cb = np.sqrt(max(cr + hr, zero)), np.sqrt(max(cg + hg, zero)), np.sqrt(max(cb + hb, zero))
                if cr > knee:
                    cr = one - rest * rest / (cr - knee + rest)
                if cg > knee:
                    cg = one - rest * rest / (cg - knee + rest)
                if cb > knee:
                    cb = one - rest * rest / (cb - knee + rest)
                share *= np.float32(255)
                r += share * cr
                g += share * cg
                b += share * cb
            line[j, 0], line[j, 1], line[j, 2] = np.uint8(r), np.uint8(g), np.uint8(b)
