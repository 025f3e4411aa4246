# For this project's own targets only; never exported.
add_library(erofs_oci_dev INTERFACE)
target_link_libraries(erofs_oci_dev INTERFACE erofs_oci)
target_compile_options(
  erofs_oci_dev INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow
                          -Wnon-virtual-dtor -Wold-style-cast -Wcast-align -Woverloaded-virtual -Werror)
set(CMAKE_CXX_EXTENSIONS OFF)

# g++ 12 finds overlapping copies in the "x" + std::string of its own library that are not there.
target_compile_options(erofs_oci_dev INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
